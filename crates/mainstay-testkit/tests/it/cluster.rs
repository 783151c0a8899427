//! A throw-away server does what it is told and never outlives its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mainstay_testkit::cluster::{Auth, Mode};
use mainstay_testkit::{Cluster, Pooler, wait_for_blocking};

const LONG: Duration = Duration::from_secs(60);

/// What a client sends before TLS; every PostgreSQL answers it with one byte.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn psql(cluster: &Cluster, url: &str, sql: &str) -> Output {
    Command::new(cluster.program("psql"))
        .args(["-XAtqc", sql, url])
        .output()
        .unwrap()
}

fn answer(cluster: &Cluster, url: &str, sql: &str) -> String {
    let output = psql(cluster, url, sql);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn refusal(cluster: &Cluster, url: &str) -> String {
    let output = psql(cluster, url, "select 1");
    assert!(!output.status.success(), "{url} was let in");
    String::from_utf8(output.stderr).unwrap()
}

fn runs(process: u32) -> bool {
    let asked = Command::new("sh")
        .args(["-c", "kill -0 \"$0\"", &process.to_string()])
        .output();
    asked.unwrap().status.success()
}

#[test]
fn a_cluster_answers_over_tcp_and_over_its_socket() {
    let cluster = Cluster::start().unwrap();
    assert_ne!(cluster.port(), 5432);
    assert!(cluster.version() >= 13);
    let tcp = answer(&cluster, &cluster.url(), "select inet_server_port()");
    assert_eq!(tcp, cluster.port().to_string());
    let socket = answer(
        &cluster,
        &cluster.socket_url(),
        "select inet_server_port() is null",
    );
    assert_eq!(socket, "t");
    assert_eq!(cluster.psql("show fsync").unwrap(), "off");
}

#[test]
fn a_wrong_password_is_refused_unless_everybody_is_trusted() {
    let scram = Cluster::start().unwrap();
    let (_, password) = scram.credentials();
    let refused = refusal(&scram, &scram.url().replace(password, "guess"));
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    assert!(!format!("{scram:?}").contains(password));

    let trusting = Cluster::builder()
        .auth(Auth::Trust)
        .durable()
        .start()
        .unwrap();
    let (_, password) = trusting.credentials();
    let guess = trusting.url().replace(password, "guess");
    assert_eq!(answer(&trusting, &guess, "show fsync"), "on");
}

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_directory() {
    let cluster = Cluster::start().unwrap();
    let process = cluster.process().unwrap();
    let directory = cluster.socket_directory().to_owned();
    assert!(runs(process) && directory.exists());
    drop(cluster);
    assert!(!runs(process));
    assert!(!directory.exists());
}

#[test]
fn a_killed_test_process_takes_its_server_along() {
    const PLAYED_BY_A_CHILD: &str = "MAINSTAY_TESTKIT_CHILD";
    if std::env::var_os(PLAYED_BY_A_CHILD).is_some() {
        let cluster = Cluster::start().unwrap();
        let process = cluster.process().unwrap();
        println!(
            "\nstarted {process} {}",
            cluster.socket_directory().display()
        );
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "cluster::a_killed_test_process_takes_its_server_along",
            "--nocapture",
        ])
        .env(PLAYED_BY_A_CHILD, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (process, directory) = read_start(child.stdout.take().unwrap());
    assert!(runs(process) && directory.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_blocking("the server to go", LONG, || (!runs(process)).then_some(())).unwrap();
    wait_for_blocking("its directory to go", LONG, || {
        (!directory.exists()).then_some(())
    })
    .unwrap();
}

fn read_start(output: impl Read) -> (u32, PathBuf) {
    for line in BufReader::new(output).lines() {
        let line = line.unwrap();
        if let Some((process, directory)) = line
            .strip_prefix("started ")
            .and_then(|rest| rest.split_once(' '))
        {
            return (process.parse().unwrap(), directory.into());
        }
    }
    panic!("the child ended without a server");
}

#[test]
fn the_server_never_runs_as_root() {
    let cluster = Cluster::start().unwrap();
    let written_by_server = cluster.socket_directory().join("data/postmaster.pid");
    let server = std::fs::metadata(written_by_server).unwrap().uid();
    let ours = std::fs::metadata(write_a_file().path()).unwrap().uid();
    assert_ne!(server, 0);
    assert!(ours == 0 || server == ours, "server {server}, test {ours}");
}

fn write_a_file() -> tempfile::NamedTempFile {
    tempfile::NamedTempFile::new().unwrap()
}

#[test]
fn two_clusters_know_nothing_of_each_other() {
    let one = Cluster::start().unwrap();
    let other = Cluster::start().unwrap();
    one.create_database("only \"here\"").unwrap();
    let url = one.url_for("only \"here\"");
    assert_eq!(
        answer(&one, &url, "select current_database()"),
        "only \"here\""
    );
    let count = "select count(*) from pg_database where datname like 'only%'";
    assert_eq!(one.psql(count).unwrap(), "1");
    assert_eq!(other.psql(count).unwrap(), "0");
    drop(one);
    assert_eq!(other.psql("select 1").unwrap(), "1");
}

#[test]
fn a_restart_keeps_port_and_data_however_the_server_was_stopped() {
    let cluster = Cluster::builder()
        .setting("max_connections", 17)
        .start()
        .unwrap();
    assert_eq!(cluster.psql("show max_connections").unwrap(), "17");
    cluster.psql("create table kept (mode text)").unwrap();
    let url = cluster.url();
    for mode in [Mode::Smart, Mode::Fast, Mode::Immediate] {
        cluster
            .psql(&format!("insert into kept values ('{mode:?}')"))
            .unwrap();
        cluster.stop(mode).unwrap();
        assert!(!cluster.is_running());
        assert!(!psql(&cluster, &url, "select 1").status.success());
        cluster.stop(mode).unwrap();
        cluster.start_again().unwrap();
        cluster.start_again().unwrap();
    }
    let kept = answer(&cluster, &url, "select string_agg(mode, ' ') from kept");
    assert_eq!(kept, "Smart Fast Immediate");
}

#[test]
fn a_paused_server_keeps_its_connections_and_says_nothing() {
    let cluster = Cluster::start().unwrap();
    cluster.pause().unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
    client.write_all(&SSL_REQUEST).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut byte = [0];
    assert!(client.read_exact(&mut byte).is_err());
    cluster.resume().unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"N");
}

#[test]
fn a_paused_server_can_be_stopped_and_dropped() {
    let cluster = Cluster::start().unwrap();
    cluster.pause().unwrap();
    cluster.stop(Mode::Fast).unwrap();
    cluster.start_again().unwrap();
    cluster.pause().unwrap();
    let process = cluster.process().unwrap();
    drop(cluster);
    assert!(!runs(process));
}

#[test]
fn clients_are_counted_and_can_be_thrown_out() {
    let cluster = Cluster::start().unwrap();
    let mut client = Command::new(cluster.program("psql"))
        .args(["-XAtq", &cluster.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seen =
        |count| move |cluster: &Cluster| (cluster.connections().unwrap() == count).then_some(());
    wait_for_blocking("the client to appear", LONG, || seen(1)(&cluster)).unwrap();
    assert_eq!(cluster.kill_backends().unwrap(), 1);
    wait_for_blocking("the client to disappear", LONG, || seen(0)(&cluster)).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn tls_is_verified_to_the_end_and_can_be_demanded() {
    let cluster = Cluster::builder().tls_only().start().unwrap();
    let ca = cluster.ca_file().unwrap();
    let verified = with_tls(&cluster, "verify-full", ca);
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(answer(&cluster, &verified, encrypted), "t");

    let refused = refusal(&cluster, &format!("{}?sslmode=disable", cluster.url()));
    assert!(refused.contains("no encryption"), "{refused}");

    let stranger = Cluster::builder().tls().start().unwrap();
    let misled = with_tls(&stranger, "verify-full", ca);
    let refused = refusal(&stranger, &misled);
    assert!(refused.contains("certificate verify failed"), "{refused}");
    let plain = format!("{}?sslmode=disable", stranger.url());
    assert_eq!(answer(&stranger, &plain, encrypted), "f");
}

#[test]
fn a_client_certificate_can_be_demanded() {
    let cluster = Cluster::builder().client_certificates().start().unwrap();
    let bare = with_tls(&cluster, "verify-ca", cluster.ca_file().unwrap());
    let refused = refusal(&cluster, &format!("{bare}&sslcert=/nowhere"));
    assert!(refused.contains("certificate"), "{refused}");
    let (certificate, key) = cluster.client_certificate().unwrap();
    let shown = format!(
        "{bare}&sslcert={}&sslkey={}",
        certificate.display(),
        key.display()
    );
    assert_eq!(answer(&cluster, &shown, "select 1"), "1");
}

fn with_tls(cluster: &Cluster, mode: &str, ca: &Path) -> String {
    format!(
        "{}?sslmode={mode}&sslrootcert={}",
        cluster.url(),
        ca.display()
    )
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let error = Cluster::builder()
        .setting("shared_buffers", "a lot")
        .start()
        .unwrap_err();
    let error = format!("{error:?}");
    assert!(
        error.contains("shared_buffers") && error.contains("a lot"),
        "{error}"
    );
}

#[test]
fn a_standby_streams_and_is_promoted_while_the_old_primary_lives_on_in_recovery() {
    let primary = Cluster::start().unwrap();
    primary.psql("create table t (id int)").unwrap();
    let standby = Cluster::builder().start_standby_of(&primary).unwrap();
    assert!(standby.is_in_recovery().unwrap());
    primary.psql("insert into t values (1)").unwrap();
    let streamed = || (standby.psql("select count(*) from t").ok()? == "1").then_some(());
    wait_for_blocking("the row to arrive", LONG, streamed).unwrap();
    assert!(standby.psql("insert into t values (2)").is_err());
    standby.promote().unwrap();
    standby.psql("insert into t values (2)").unwrap();
    primary.restart_in_recovery().unwrap();
    assert!(primary.is_in_recovery().unwrap());
    assert!(primary.psql("insert into t values (3)").is_err());
}

#[test]
fn a_pooler_leads_to_the_cluster_and_ends_with_its_handle() {
    let cluster = Cluster::start().unwrap();
    let pooler = Pooler::start(&cluster, &[]).unwrap();
    assert!(
        pooler
            .console("show version")
            .unwrap()
            .contains("PgBouncer")
    );
    let process = pooler.process().unwrap();
    drop(pooler);
    let gone = Command::new("sh")
        .args(["-c", &format!("kill -0 {process}")])
        .output()
        .unwrap();
    assert!(!gone.status.success());
}
