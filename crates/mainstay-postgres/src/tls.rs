//! TLS, in libpq's terms.
//!
//! `sslmode` is the setting that is most often believed to do more than it does, so its words mean
//! here exactly what they mean in libpq, and where libpq would quietly do less, we do not: a root
//! certificate that is given is always used (that makes `require` a `verify-ca`), and `prefer` goes
//! on in clear only if the server says that it knows no TLS, never after a failed handshake.

mod binding;
mod verify;

pub(crate) use self::binding::end_point;

use self::verify::{AnyName, Anyone};
use mainstay_core::config::{SslMode, Tls};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// The value of `sslrootcert` that means the operating system's authorities.
const SYSTEM: &str = "system";

/// How the connections of one database use TLS; made once, from files read once.
#[derive(Clone)]
pub(crate) struct TlsPolicy {
    mode: SslMode,
    connector: TlsConnector,
}

/// How much of a certificate is checked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl TlsPolicy {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] when a file is missing or malformed, or the settings contradict each other.
    pub(crate) fn new(tls: &Tls) -> Result<Self> {
        let check = check(tls)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(tls, check, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| config(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let client = match (&tls.client_cert, &tls.client_key) {
            (Some(chain), Some(key)) => builder
                .with_client_auth_cert(certificates("sslcert", chain)?, private_key(key)?)
                .map_err(|error| config(format!("sslcert and sslkey cannot be used: {error}")))?,
            (None, None) => builder.with_no_client_auth(),
            _ => {
                return Err(config(
                    "sslcert and sslkey belong together, and one is missing",
                ));
            }
        };
        Ok(Self {
            mode: tls.mode,
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    pub(crate) fn mode(&self) -> SslMode {
        self.mode
    }

    pub(crate) fn connector(&self) -> &TlsConnector {
        &self.connector
    }
}

impl std::fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsPolicy")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The name that the certificate must carry.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Report::new(
            Kind::Tls,
            format!("{host:?} is no name that a certificate could carry"),
        )
        .into()
    })
}

fn check(tls: &Tls) -> Result<Check> {
    let is_system = tls.root_cert.as_deref() == Some(Path::new(SYSTEM));
    Ok(match tls.mode {
        SslMode::VerifyFull => Check::AuthorityAndName,
        // Anybody can get a certificate of a public authority, for a name of their own.
        _ if is_system => {
            let message =
                "sslrootcert=system with a weaker sslmode than verify-full checks nothing";
            return Err(Report::new(Kind::Config, message)
                .remedy("set sslmode=verify-full, or name a certificate file of your own")
                .into());
        }
        SslMode::VerifyCa => Check::Authority,
        _ if tls.root_cert.is_some() => Check::Authority,
        _ => Check::Nothing,
    })
}

fn verifier(
    tls: &Tls,
    check: Check,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    if check == Check::Nothing {
        return Ok(Arc::new(Anyone::new(provider)));
    }
    let roots = Arc::new(roots(tls.root_cert.as_deref())?);
    if check == Check::Authority {
        return Ok(Arc::new(AnyName::new(roots, provider)));
    }
    let full =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| config(format!("sslrootcert cannot be used: {error}")))?;
    Ok(full)
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) if path != Path::new(SYSTEM) => {
            for certificate in certificates("sslrootcert", path)? {
                roots.add(certificate).map_err(|error| {
                    config(format!(
                        "sslrootcert {} cannot be used: {error}",
                        path.display()
                    ))
                })?;
            }
        }
        _ => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the system could not be read");
            }
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(
                    Report::new(Kind::Config, "the system has no trusted authorities")
                        .remedy("install ca-certificates, or name a file with sslrootcert")
                        .into(),
                );
            }
        }
    }
    Ok(roots)
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| unreadable(parameter, path, &error))?;
    if read.is_empty() {
        return Err(config(format!(
            "{parameter} {} holds no PEM certificate",
            path.display()
        )));
    }
    Ok(read)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable("sslkey", path, &error))
}

fn unreadable(parameter: &str, path: &Path, error: &rustls::pki_types::pem::Error) -> Error {
    config(format!(
        "{parameter} {} cannot be read: {error}",
        path.display()
    ))
}

fn config(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Report::new(Kind::Config, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(mode: SslMode, root: Option<&str>) -> Tls {
        let mut tls = Tls::default();
        tls.mode = mode;
        tls.root_cert = root.map(Into::into);
        tls
    }

    #[test]
    fn a_root_certificate_is_never_ignored() {
        for mode in [
            SslMode::Allow,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
        ] {
            assert_eq!(
                check(&tls(mode, Some("ca.pem"))).unwrap(),
                Check::Authority,
                "{mode:?}"
            );
        }
        assert_eq!(check(&tls(SslMode::Require, None)).unwrap(), Check::Nothing);
        assert_eq!(
            check(&tls(SslMode::VerifyCa, None)).unwrap(),
            Check::Authority
        );
        assert_eq!(
            check(&tls(SslMode::VerifyFull, None)).unwrap(),
            Check::AuthorityAndName
        );
    }

    #[test]
    fn the_systems_authorities_are_no_check_without_the_name() {
        assert_eq!(
            check(&tls(SslMode::Require, Some("system")))
                .unwrap_err()
                .kind(),
            Kind::Config
        );
        let full = check(&tls(SslMode::VerifyFull, Some("system"))).unwrap();
        assert_eq!(full, Check::AuthorityAndName);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = TlsPolicy::new(&tls(SslMode::VerifyCa, Some("/nowhere/ca.pem"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}
