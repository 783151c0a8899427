//! What can be chosen about a cluster before it starts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{Display, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::account::{Account, server_account, write_private};
use super::binaries::Binaries;
use super::image::Image;
use super::keeper::Keeper;
use super::{Cluster, Error, Result, Server, launch, log_tail, tls};
use crate::port::free_port;

/// Somebody else may take the port between the look and the bind; five times in a row is no
/// accident.
const PORT_ATTEMPTS: usize = 5;

/// How clients prove who they are over TCP. The Unix socket always trusts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// A challenge, what servers use today.
    #[default]
    ScramSha256,
    /// The password in clear.
    Password,
    /// Nothing is asked.
    Trust,
}

impl Auth {
    fn method(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::Password => "password",
            Self::Trust => "trust",
        }
    }
}

/// A cluster to be; see [`Cluster::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing starts before `start`"]
pub struct Builder {
    auth: Auth,
    durable: bool,
    tls: bool,
    tls_only: bool,
    expired: bool,
    client_certificates: bool,
    settings: BTreeMap<String, String>,
}

impl Builder {
    /// How clients prove who they are over TCP (default: SCRAM with a random password).
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Writes through to the disk, as a server in earnest does. The default does not: a test does
    /// not survive a loss of power anyway, and nothing else needs it, [`super::Mode::Immediate`]
    /// included.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Speaks TLS with those who ask for it, with a certificate for `localhost` and `127.0.0.1` by
    /// the CA in [`Cluster::ca_file`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Speaks TLS and refuses everybody on TCP who does not.
    pub fn tls_only(mut self) -> Self {
        self.tls_only = true;
        self.tls()
    }

    /// Speaks TLS with a certificate that expired in 2020.
    pub fn expired_certificate(mut self) -> Self {
        self.expired = true;
        self.tls()
    }

    /// Refuses everybody on TCP who does not show a certificate by our CA; see
    /// [`Cluster::client_certificate`].
    pub fn client_certificates(mut self) -> Self {
        self.client_certificates = true;
        self.tls_only()
    }

    /// One line of `postgresql.conf`. The last value of a name wins, also over our own.
    pub fn setting(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// Makes the cluster and waits until it accepts clients. Blocks for about a second the first
    /// time, for a fraction of it afterwards.
    ///
    /// # Errors
    ///
    /// When no PostgreSQL is installed (the message says where it was looked for) or the server
    /// does not start (the message carries the end of its log).
    pub fn start(self) -> Result<Cluster> {
        let image = Image::of(&Binaries::find()?, server_account()?.as_ref())?;
        self.start_with(|root, account| image.copy_to(root, account))
    }

    /// Starts with the data directory that `fill` puts into the cluster's own.
    pub(super) fn start_with(
        self,
        fill: impl FnOnce(&Path, Option<&Account>) -> Result<()>,
    ) -> Result<Cluster> {
        let binaries = Binaries::find()?;
        let account = server_account()?;
        let account = account.as_ref();
        // Every cluster of a process has the image's password: a standby has its primary's.
        let image = Image::of(&binaries, account)?;
        let mut keeper = Keeper::open(account, |root| server_command(&binaries, root))?;
        let root = keeper.root().to_owned();
        fill(&root, account)?;
        write_private(&root.join("data/pg_hba.conf"), &self.host_rules(), account)?;
        let tls = if self.tls {
            Some(tls::make(&root, self.expired, account)?)
        } else {
            None
        };
        let port = self.launch_on_free_port(&mut keeper, account)?;
        Ok(Cluster {
            server: Arc::new(Server {
                binaries,
                port,
                password: image.password().clone(),
                tls,
                keeper: Mutex::new(keeper),
                root,
            }),
        })
    }

    fn launch_on_free_port(&self, keeper: &mut Keeper, account: Option<&Account>) -> Result<u16> {
        let root = keeper.root().to_owned();
        let mut attempt = 1;
        loop {
            let port = free_port().map_err(Error::during("looking for a free port"))?;
            let settings = self.settings_file(&root, port)?;
            write_private(&root.join("data/testkit.conf"), &settings, account)?;
            let before = std::fs::metadata(root.join("log")).map_or(0, |log| log.len() as usize);
            let Err(error) = launch(keeper) else {
                return Ok(port);
            };
            let log = log_tail(&root, before);
            if attempt == PORT_ATTEMPTS || !log.contains("Address already in use") {
                return Err(error.with_log(&log));
            }
            attempt += 1;
        }
    }

    fn settings_file(&self, root: &Path, port: u16) -> Result<String> {
        let mut all = BTreeMap::new();
        let mut add = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
        add("listen_addresses", "127.0.0.1");
        add("port", &port.to_string());
        add("unix_socket_directories", &root.display().to_string());
        // Enough for a shared cluster with many tests at once; a slot costs a few hundred bytes.
        add("max_connections", "300");
        add("shared_buffers", "32MB");
        add("password_encryption", "scram-sha-256");
        add("timezone", "UTC");
        add("log_timezone", "UTC");
        add("log_line_prefix", "%m [%p] %q%u@%d ");
        if !self.durable {
            // What is committed still reaches the kernel, so a crash of the server loses nothing.
            add("fsync", "off");
            add("full_page_writes", "off");
        }
        if self.tls {
            all.extend(tls::settings(root));
        }
        all.extend(self.settings.clone());
        let mut text = String::new();
        for (name, value) in all {
            setting_line(&mut text, &name, &value)?;
        }
        Ok(text)
    }

    fn host_rules(&self) -> String {
        let kind = if self.tls_only { "hostssl" } else { "host" };
        let method = self.auth.method();
        let certificate = if self.client_certificates {
            " clientcert=verify-ca"
        } else {
            ""
        };
        format!(
            "local all all trust\n\
             local replication all trust\n\
             {kind} all all 127.0.0.1/32 {method}{certificate}\n\
             {kind} replication all 127.0.0.1/32 {method}{certificate}\n"
        )
    }
}

fn server_command(binaries: &Binaries, root: &Path) -> Vec<OsString> {
    vec![
        binaries.program("postgres").into(),
        "-D".into(),
        root.join("data").into(),
    ]
}

/// A value in quotes is taken as it is; only a line break or a strange name could say more than it
/// seems to.
fn setting_line(text: &mut String, name: &str, value: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(plain) || value.contains(['\n', '\r', '\0']) {
        return Err(Error::new(format!("{name:?} = {value:?} is no setting")));
    }
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    writeln!(text, "{name} = '{value}'").map_err(Error::during("writing the settings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let mut text = String::new();
        setting_line(&mut text, "search_path", r"it's \ 'fine'").unwrap();
        assert_eq!(text, "search_path = 'it''s \\\\ ''fine'''\n");
        assert!(setting_line(&mut text, "a", "b\nfsync = off").is_err());
        assert!(setting_line(&mut text, "a = b #", "c").is_err());
    }

    #[test]
    fn own_settings_win_and_durable_means_durable() {
        let root = Path::new("/somewhere");
        let fast = Builder::default().setting("shared_buffers", "1MB");
        let fast = fast.settings_file(root, 17_000).unwrap();
        assert!(
            fast.contains("shared_buffers = '1MB'\n") && !fast.contains("32MB"),
            "{fast}"
        );
        assert!(fast.contains("fsync = 'off'\n"), "{fast}");
        let durable = Builder::default()
            .durable()
            .settings_file(root, 17_000)
            .unwrap();
        assert!(!durable.contains("fsync"), "{durable}");
    }

    #[test]
    fn tls_only_leaves_no_way_without() {
        let rules = Builder::default().tls_only().auth(Auth::Trust).host_rules();
        let tcp: Vec<&str> = rules
            .lines()
            .filter(|rule| rule.starts_with("host"))
            .collect();
        assert!(
            tcp.iter().all(|rule| rule.starts_with("hostssl ")),
            "{rules}"
        );
    }
}
