//! TLS: never silently weaker than it reads.

use crate::{POSTGRES, postgres, refusal};
use mainstay_core::config::SslMode;
use std::path::PathBuf;

fn mode(query: &str) -> SslMode {
    postgres(&format!("{POSTGRES}?{query}")).tls.mode
}

#[test]
fn sslmode_means_what_libpq_says() {
    for (text, expected) in [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ] {
        assert_eq!(mode(&format!("sslmode={text}")), expected);
    }
    assert_eq!(postgres(POSTGRES).tls.mode, SslMode::Prefer);
    let message = refusal(&format!("{POSTGRES}?sslmode=verify-fall"));
    assert!(
        message.contains("did you mean sslmode=verify-full?"),
        "{message}"
    );
    assert!(refusal(&format!("{POSTGRES}?sslmode=yes")).contains("disable, allow, prefer"));
}

#[test]
fn strict_is_verify_full() {
    assert_eq!(mode("sslaccept=strict"), SslMode::VerifyFull);
    assert_eq!(
        mode("sslmode=require&sslaccept=strict"),
        SslMode::VerifyFull
    );
    assert_eq!(
        mode("sslaccept=strict&sslmode=verify-full"),
        SslMode::VerifyFull
    );
    for weaker in ["disable", "allow", "prefer", "verify-ca"] {
        let message = refusal(&format!("{POSTGRES}?sslmode={weaker}&sslaccept=strict"));
        assert!(
            message.contains("write sslmode=verify-full alone"),
            "{message}"
        );
    }
}

#[test]
fn accepting_invalid_certificates_contradicts_every_check() {
    assert_eq!(mode("sslaccept=accept_invalid_certs"), SslMode::Prefer);
    assert_eq!(
        mode("sslmode=require&sslaccept=accept_invalid_certs"),
        SslMode::Require
    );
    for (query, checked) in [
        ("sslmode=verify-ca", "sslmode=verify-ca"),
        ("sslmode=verify-full", "sslmode=verify-full"),
        ("sslmode=require&sslrootcert=ca.pem", "sslrootcert"),
        ("sslrootcert=system", "sslmode=verify-full"),
    ] {
        let message = refusal(&format!(
            "{POSTGRES}?{query}&sslaccept=accept_invalid_certs"
        ));
        assert!(
            message.contains(&format!("contradicts {checked}")),
            "{message}"
        );
    }
}

#[test]
fn certificates_are_libpqs() {
    let query = "sslmode=verify-ca&sslrootcert=/etc/my%20ca.pem&sslcert=c.pem&sslkey=c.key";
    let tls = postgres(&format!("{POSTGRES}?{query}")).tls;
    assert_eq!(tls.root_cert, Some(PathBuf::from("/etc/my ca.pem")));
    assert_eq!(tls.client_cert, Some(PathBuf::from("c.pem")));
    assert_eq!(tls.client_key, Some(PathBuf::from("c.key")));
}

#[test]
fn a_certificate_without_key_is_explained() {
    let message = refusal(&format!("{POSTGRES}?sslcert=server-ca.pem"));
    assert!(message.contains("sslcert without sslkey"), "{message}");
    assert!(message.contains("is sslrootcert here"), "{message}");
    assert!(refusal(&format!("{POSTGRES}?sslkey=c.key")).contains("sslkey without sslcert"));
}

#[test]
fn certificates_that_would_never_be_used_are_refused() {
    for query in ["sslrootcert=ca.pem", "sslcert=c.pem&sslkey=c.key"] {
        let message = refusal(&format!("{POSTGRES}?sslmode=disable&{query}"));
        assert!(message.contains("never uses them"), "{message}");
    }
}

#[test]
fn the_systems_authorities_imply_the_check_of_the_name() {
    assert_eq!(mode("sslrootcert=system"), SslMode::VerifyFull);
    for weaker in ["allow", "prefer", "require", "verify-ca"] {
        let message = refusal(&format!("{POSTGRES}?sslrootcert=system&sslmode={weaker}"));
        assert!(message.contains("weaker sslmode"), "{message}");
    }
}

#[test]
fn pkcs12_is_refused_with_the_way_to_convert_it() {
    for query in [
        "sslidentity=id.p12",
        "sslpassword=hunter2",
        "sslidentity=a&sslpassword=hunter2",
    ] {
        let message = refusal(&format!("{POSTGRES}?{query}"));
        assert!(message.contains("openssl pkcs12"), "{message}");
        assert!(
            message.contains("sslcert=client.pem and sslkey=client.key"),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
}
