//! The environment: what wins, what is said about it, and what is never shown.

use crate::{POSTGRES, SQLITE};
use mainstay_core::backend::Isolation;
use mainstay_core::config::{PARAMETERS, Target};
use mainstay_core::{Config, Kind, Result};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn read(url: &str, variables: &[(&str, &str)]) -> Result<Config> {
    Config::from_variables(|name| match name {
        "DATABASE_URL" => Some(url.to_owned()),
        _ => lookup(variables, name),
    })
}

fn lookup(variables: &[(&str, &str)], name: &str) -> Option<String> {
    let found = variables.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| (*value).to_owned())
}

/// Runs `work` and gives back what it logged.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_variable_is_read_in_its_own_unit() {
    let milliseconds = |n| Some(Duration::from_millis(n));
    let config = read(
        POSTGRES,
        &[
            ("DB_CONNECTION_LIMIT", "20"),
            ("DB_MIN_CONNECTIONS", "4"),
            ("DB_MAX_WAITERS", "50"),
            ("DB_POOL_TIMEOUT", "3"),
            ("DB_CONNECT_TIMEOUT", "4"),
            ("DB_TIMEOUT", "5"),
            ("DB_STATEMENT_TIMEOUT", "6000"),
            ("DB_RETRY_MAX", "7"),
            ("DB_RETRY_BASE", "80"),
            ("DB_RIDE_THROUGH", "9"),
            ("DB_MAX_CONNECTION_LIFETIME", "10m"),
            ("DB_MAX_IDLE_CONNECTION_LIFETIME", "11"),
            ("DB_SLOW_STATEMENT", "120"),
            ("DB_LONG_HOLD", "13"),
            ("DB_SHED_AFTER", "150"),
            ("DB_CLOSE_GRACE", "14"),
            ("DB_STRICT_ROWS", "true"),
            ("DB_ISOLATION", "serializable"),
            ("DB_STATEMENT_CACHE_SIZE", "15"),
        ],
    )
    .unwrap();
    assert_eq!((config.connection_limit, config.min_connections), (20, 4));
    assert_eq!((config.max_waiters, config.retry_max), (50, 7));
    assert_eq!(config.pool_timeout, milliseconds(3_000));
    assert_eq!(config.connect_timeout, Duration::from_secs(4));
    assert_eq!(config.timeout, Duration::from_secs(5));
    assert_eq!(config.statement_timeout, milliseconds(6_000));
    assert_eq!(config.retry_base, Duration::from_millis(80));
    assert_eq!(config.ride_through, Duration::from_secs(9));
    assert_eq!(config.max_connection_lifetime, milliseconds(600_000));
    assert_eq!(config.max_idle_connection_lifetime, milliseconds(11_000));
    assert_eq!(config.slow_statement, milliseconds(120));
    assert_eq!(config.long_hold, milliseconds(13_000));
    assert_eq!(config.shed_after, milliseconds(150));
    assert_eq!(config.close_grace, Duration::from_secs(14));
    assert!(config.strict_rows);
    assert_eq!(config.isolation, Some(Isolation::Serializable));
    assert_eq!(config.statement_cache_size, 15);
}

#[test]
fn a_variable_of_sqlite_is_read() {
    let given = [("DB_WRITE_PROBE", "true"), ("DB_WAL_LIMIT_MIB", "512")];
    let config = read(SQLITE, &given).unwrap();
    let Target::Sqlite(target) = config.target else {
        panic!("{SQLITE} is a file");
    };
    assert!(target.write_probe);
    assert_eq!(target.wal_limit, Some(512 * 1024 * 1024));
}

#[test]
fn a_variable_is_the_parameters_name_in_capitals() {
    let mut variables = 0;
    for parameter in PARAMETERS {
        if let Some(variable) = parameter.environment {
            assert_eq!(variable, format!("DB_{}", parameter.name.to_uppercase()));
            let error = read(POSTGRES, &[(variable, "?hunter2?")]).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.message().starts_with(variable), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
            variables += 1;
        }
    }
    assert_eq!(variables, 21, "the tests above set each of them");
}

#[test]
fn the_environment_wins_over_the_url() {
    let url = "file:./dev.db?connection_limit=4&pool_timeout=2";
    let config = read(url, &[("DB_CONNECTION_LIMIT", "8")]).unwrap();
    assert_eq!(config.connection_limit, 8);
    assert_eq!(config.pool_timeout, Some(Duration::from_secs(2)));
}

#[test]
fn the_whole_is_checked_once_both_have_spoken() {
    let url = "file:./dev.db?min_connections=50";
    assert_eq!(
        read(url, &[("DB_CONNECTION_LIMIT", "60")])
            .unwrap()
            .min_connections,
        50
    );
    let error = read(url, &[("DB_CONNECTION_LIMIT", "40")]).unwrap_err();
    assert!(error.message().contains("min_connections (50)"), "{error}");
    // Zero refers to the timeout that holds in the end.
    let url = "file:./dev.db?connect_timeout=0";
    let config = read(url, &[("DB_TIMEOUT", "9")]).unwrap();
    assert_eq!(config.connect_timeout, Duration::from_secs(9));
}

#[test]
fn a_missing_url_is_named_with_examples() {
    let error = Config::from_variables(|_| None).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert_eq!(error.message(), "DATABASE_URL is not set");
    assert!(error.remedy().unwrap().contains("file:./dev.db"));
}

#[test]
fn an_error_in_the_url_names_the_variable() {
    for url in [
        "",
        "mysql://app:hunter2@db/shop",
        "file:a?x=1",
        "postgres://app:hunter2@:1/shop",
    ] {
        let error = read(url, &[]).unwrap_err();
        assert!(error.message().starts_with("DATABASE_URL: "), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.remedy().is_some(), "{error}");
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = read(
        SQLITE,
        &[("DB_POOL_TIMEOUT", ""), ("DB_CONNECTION_LIMIT", " ")],
    )
    .unwrap();
    assert_eq!(config.pool_timeout, Some(Duration::from_secs(10)));
}

#[test]
fn a_disagreement_is_logged_without_secrets_and_an_agreement_is_not() {
    let url = format!("{POSTGRES}?pool_timeout=2");
    let disagreement = logged(|| drop(read(&url, &[("DB_POOL_TIMEOUT", "3")]).unwrap()));
    assert!(disagreement.contains("DB_POOL_TIMEOUT"), "{disagreement}");
    assert!(
        disagreement.contains("the environment wins"),
        "{disagreement}"
    );
    assert!(!disagreement.contains("hunter2"), "{disagreement}");
    let agreement = logged(|| drop(read(&url, &[("DB_POOL_TIMEOUT", "2000ms")]).unwrap()));
    assert_eq!(agreement, "");
}

#[test]
fn a_variable_for_the_other_database_is_checked_and_passed_over() {
    let mut config = None;
    let variables = [("DB_STATEMENT_TIMEOUT", "5000")];
    let lines = logged(|| config = Some(read(SQLITE, &variables).unwrap()));
    assert!(config.is_some());
    assert!(
        lines.contains("has no effect on a SQLite database"),
        "{lines}"
    );
    assert!(read(SQLITE, &[("DB_STATEMENT_TIMEOUT", "soon")]).is_err());
}

#[test]
fn variables_on_top_of_a_configuration_change_all_or_nothing() {
    let url = format!("{POSTGRES}?sslmode=verify-full&connection_limit=4");
    let mut config = crate::config(&url);
    config
        .apply_variables(|name| lookup(&[("DB_TIMEOUT", "9")], name))
        .unwrap();
    let mut expected = crate::config(&url);
    expected.timeout = Duration::from_secs(9);
    assert_eq!(format!("{config:?}"), format!("{expected:?}"));
    let bad = [("DB_CONNECTION_LIMIT", "8"), ("DB_RETRY_MAX", "often")];
    let error = config
        .apply_variables(|name| lookup(&bad, name))
        .unwrap_err();
    assert!(error.message().starts_with("DB_RETRY_MAX"), "{error}");
    assert_eq!(config.connection_limit, 4);
}

#[test]
fn a_near_miss_is_said_and_other_programs_are_left_alone() {
    let names = [
        "DB_POOL_TIMOUT",
        "DB_CONECTION_LIMIT",
        "DB_MAX_CONNECTIONS",
        "DB_POOL_TIMEOUT",
        "DB_HOST",
        "DB_PORT",
        "DB_USER",
        "DB_PASSWORD",
        "DB_NAME",
        "DB_TIMEZONE",
        "DB_",
        "DATABASE_URL",
        "PATH",
    ];
    let mut found = Vec::new();
    let lines = logged(|| found = Config::near_misses(names.map(str::to_owned)));
    let found: Vec<_> = found
        .iter()
        .map(|(name, known)| (name.as_str(), *known))
        .collect();
    assert_eq!(
        found,
        [
            ("DB_POOL_TIMOUT", "DB_POOL_TIMEOUT"),
            ("DB_CONECTION_LIMIT", "DB_CONNECTION_LIMIT"),
            ("DB_MAX_CONNECTIONS", "DB_CONNECTION_LIMIT"),
        ]
    );
    assert_eq!(lines.matches("WARN").count(), 3, "{lines}");
}
