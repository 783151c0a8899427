//! Certificates cannot be committed to a repository: they expire, and a private key in a repository
//! alarms every scanner. They are made when the cluster is, by a CA that lives as long as it does.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::account::{Account, write_private};
use super::{Error, Result, SUPERUSER};

/// The files of a cluster that speaks TLS.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    pub(super) ca: PathBuf,
    pub(super) client_certificate: PathBuf,
    pub(super) client_key: PathBuf,
}

/// Makes a CA, a certificate for the server (`localhost`, `127.0.0.1`, `::1`) and one for the
/// superuser as a client, and puts them beside the data directory.
pub(super) fn make(root: &Path, expired: bool, account: Option<&Account>) -> Result<TlsFiles> {
    let pems = certificates(expired).map_err(Error::during("making certificates"))?;
    // Both sides refuse a private key that belongs to somebody else.
    let put = |name: &str, text: &str, owner: Option<&Account>| {
        let path = root.join(name);
        write_private(&path, text, owner).map(|()| path)
    };
    put("server.crt", &pems.server.0, account)?;
    put("server.key", &pems.server.1, account)?;
    Ok(TlsFiles {
        ca: put("ca.crt", &pems.ca, account)?,
        client_certificate: put("client.crt", &pems.client.0, None)?,
        client_key: put("client.key", &pems.client.1, None)?,
    })
}

/// The settings with which the server uses them.
pub(super) fn settings(root: &Path) -> Vec<(String, String)> {
    let file = |name: &str| root.join(name).display().to_string();
    vec![
        ("ssl".to_owned(), "on".to_owned()),
        ("ssl_ca_file".to_owned(), file("ca.crt")),
        ("ssl_cert_file".to_owned(), file("server.crt")),
        ("ssl_key_file".to_owned(), file("server.key")),
    ]
}

/// Certificates as PEM, each leaf with its private key.
struct Pems {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn certificates(expired: bool) -> Result<Pems, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two CAs of one name would be told apart by a failing signature only, which reads strangely.
    let name = format!("mainstay test CA {:016x}", fastrand::u64(..));
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    Ok(Pems {
        ca,
        server: leaf("localhost", names.into(), expired, &issuer)?,
        client: leaf(SUPERUSER, Vec::new(), false, &issuer)?,
    })
}

fn leaf(
    name: &str,
    alternatives: Vec<String>,
    expired: bool,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name.push(DnType::CommonName, name);
    if expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
