//! Every parameter: what it sets, in which unit, and what it refuses.

use crate::{POSTGRES, SQLITE, config, postgres, refusal, sqlite};
use mainstay_core::Config;
use mainstay_core::backend::Isolation;
use mainstay_core::config::{Applies, ChannelBinding, Durability, PARAMETERS, ReadFrom};
use std::time::Duration;

type Field = fn(&Config) -> Option<Duration>;

/// The durations that both databases have, and what zero means for them.
const DURATIONS: &[(&str, Field, Zero)] = &[
    ("pool_timeout", |c| c.pool_timeout, Zero::NoLimit),
    (
        "connect_timeout",
        |c| Some(c.connect_timeout),
        Zero::Timeout,
    ),
    ("timeout", |c| Some(c.timeout), Zero::Refused),
    (
        "max_connection_lifetime",
        |c| c.max_connection_lifetime,
        Zero::NoLimit,
    ),
    (
        "max_idle_connection_lifetime",
        |c| c.max_idle_connection_lifetime,
        Zero::NoLimit,
    ),
    ("slow_statement", |c| c.slow_statement, Zero::NoLimit),
    ("long_hold", |c| c.long_hold, Zero::NoLimit),
    ("shed_after", |c| c.shed_after, Zero::NoLimit),
    ("close_grace", |c| Some(c.close_grace), Zero::Itself),
    ("ride_through", |c| Some(c.ride_through), Zero::Itself),
    ("retry_base", |c| Some(c.retry_base), Zero::Itself),
];

#[derive(Copy, Clone, Debug)]
enum Zero {
    NoLimit,
    Timeout,
    Refused,
    Itself,
}

#[test]
fn a_duration_is_read_in_every_unit_and_bare_means_seconds() {
    for (name, field, _) in DURATIONS {
        for (text, milliseconds) in [
            ("7", 7_000),
            ("0.5", 500),
            ("7s", 7_000),
            ("250ms", 250),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
        ] {
            for base in [POSTGRES, SQLITE] {
                let url = format!("{base}?{name}={text}");
                let expected = Some(Duration::from_millis(milliseconds));
                assert_eq!(field(&config(&url)), expected, "{url}");
            }
        }
    }
}

#[test]
fn zero_means_what_the_table_says() {
    for (name, field, zero) in DURATIONS {
        for text in ["0", "0s", "0ms"] {
            let url = format!("{SQLITE}?{name}={text}");
            match zero {
                Zero::NoLimit => assert_eq!(field(&config(&url)), None, "{url}"),
                Zero::Itself => assert_eq!(field(&config(&url)), Some(Duration::ZERO), "{url}"),
                Zero::Refused => assert!(refusal(&url).contains("more than 0"), "{url}"),
                Zero::Timeout => {
                    let url = format!("{url}&timeout=12");
                    assert_eq!(field(&config(&url)), Some(Duration::from_secs(12)), "{url}");
                }
            }
        }
    }
}

#[test]
fn a_bad_duration_is_refused_with_name_form_and_example() {
    for (name, ..) in DURATIONS {
        for (text, word) in [
            ("-1", "negative"),
            ("-0.5s", "negative"),
            ("ten", "500ms"),
            ("5sec", "500ms"),
            ("1e3", "500ms"),
            ("99999999999999999999", "365d"),
            ("366d", "365d"),
        ] {
            let message = refusal(&format!("{SQLITE}?{name}={text}"));
            let example = format!("for example {name}=");
            for part in [*name, word, &example] {
                assert!(
                    message.contains(part),
                    "{name}={text}: `{part}` is missing in: {message}"
                );
            }
        }
    }
}

#[test]
fn statement_timeout_is_not_mistaken_for_milliseconds() {
    for (text, expected) in [
        ("30", Some(Duration::from_secs(30))),
        ("5000ms", Some(Duration::from_secs(5))),
        ("5000s", Some(Duration::from_secs(5000))),
        ("0", None),
    ] {
        let url = format!("{POSTGRES}?statement_timeout={text}");
        assert_eq!(config(&url).statement_timeout, expected, "{url}");
    }
    let message = refusal(&format!("{POSTGRES}?statement_timeout=5000"));
    assert!(
        message.contains("seconds in the URL; write the unit"),
        "{message}"
    );
    let message = refusal(&format!("{POSTGRES}?retry_base=50"));
    assert!(
        message.contains("write the unit; for example retry_base=50ms"),
        "{message}"
    );
    // Rounded to whole milliseconds it would be 0, which the server reads as "no limit".
    let message = refusal(&format!("{POSTGRES}?statement_timeout=0.1ms"));
    assert!(message.contains("at least 1ms"), "{message}");
}

#[test]
fn how_a_dead_peer_is_noticed_is_said_in_libpqs_words() {
    let tcp = |query: &str| postgres(&format!("{POSTGRES}?{query}")).keep_alive;
    let default = tcp("");
    assert!(default.enabled && default.user_timeout == Some(Duration::from_secs(20)));
    let all = tcp(
        "keepalives_idle=60&keepalives_interval=10s&keepalives_count=5&tcp_user_timeout=8000ms",
    );
    assert_eq!(
        (all.idle, all.interval, all.count),
        (Duration::from_secs(60), Duration::from_secs(10), 5)
    );
    assert_eq!(all.user_timeout, Some(Duration::from_secs(8)));
    assert!(!tcp("keepalives=0").enabled);
    assert_eq!(tcp("tcp_user_timeout=0").user_timeout, None);
    // libpq counts it in milliseconds.
    let message = refusal(&format!("{POSTGRES}?tcp_user_timeout=20000"));
    assert!(message.contains("write the unit"), "{message}");
    for query in ["keepalives=yes", "keepalives_idle=0", "keepalives_count=0"] {
        refusal(&format!("{POSTGRES}?{query}"));
    }
}

#[test]
fn a_count_is_read_within_its_range() {
    type Count = fn(&Config) -> usize;
    let counts: [(&str, Count, bool); 5] = [
        ("connection_limit", |c| c.connection_limit, false),
        ("max_waiters", |c| c.max_waiters, false),
        ("min_connections", |c| c.min_connections, true),
        ("statement_cache_size", |c| c.statement_cache_size, true),
        ("retry_max", |c| c.retry_max as usize, true),
    ];
    for (name, field, may_be_zero) in counts {
        assert_eq!(field(&config(&format!("{POSTGRES}?{name}=1"))), 1, "{name}");
        let zero = format!("{SQLITE}?{name}=0");
        if may_be_zero {
            assert_eq!(field(&config(&zero)), 0, "{name}");
        } else {
            assert!(refusal(&zero).contains(&format!("{name} must be a whole number from 1 to")));
        }
        for text in [
            "-1",
            "+1",
            "1.5",
            "ten",
            "0x10",
            "4294967296",
            "99999999999999999999",
            "１",
        ] {
            let message = refusal(&format!("{SQLITE}?{name}={text}"));
            assert!(
                message.contains(&format!("for example {name}=")),
                "{message}"
            );
            assert!(!message.contains(text), "the value is repeated: {message}");
        }
    }
}

#[test]
fn a_flag_is_true_or_false() {
    assert!(config(&format!("{SQLITE}?strict_rows=true")).strict_rows);
    assert!(!config(&format!("{SQLITE}?strict_rows=false")).strict_rows);
    assert!(postgres(&format!("{POSTGRES}?pgbouncer=true")).pgbouncer);
    assert!(!postgres(&format!("{POSTGRES}?pgbouncer=false")).pgbouncer);
    for name in ["strict_rows", "pgbouncer"] {
        for text in ["1", "yes", "True", "on"] {
            let message = refusal(&format!("{POSTGRES}?{name}={text}"));
            assert!(
                message.contains(&format!("{name} must be true or false")),
                "{message}"
            );
        }
    }
}

#[test]
fn isolation_is_read_in_every_usual_spelling() {
    for (text, isolation) in [
        ("read_committed", Isolation::ReadCommitted),
        ("repeatable-read", Isolation::RepeatableRead),
        ("serializable", Isolation::Serializable),
        ("READ%20COMMITTED", Isolation::ReadCommitted),
        ("repeatable+read", Isolation::RepeatableRead),
    ] {
        for base in [POSTGRES, SQLITE] {
            assert_eq!(
                config(&format!("{base}?isolation={text}")).isolation,
                Some(isolation)
            );
        }
    }
    let message = refusal(&format!("{SQLITE}?isolation=serialisable"));
    assert!(
        message.contains("did you mean isolation=serializable?"),
        "{message}"
    );
    let message = refusal(&format!("{SQLITE}?isolation=snapshot"));
    assert!(
        message.contains("one of read_committed, repeatable_read, serializable"),
        "{message}"
    );
}

#[test]
fn texts_of_postgres_are_decoded() {
    let target = postgres(&format!(
        "{POSTGRES}?schema=my%20app&application_name=shop%261&options=-c%20work_mem=64MB"
    ));
    assert_eq!(target.schema.as_deref(), Some("my app"));
    assert_eq!(target.application_name.as_deref(), Some("shop&1"));
    assert_eq!(target.options.as_deref(), Some("-c work_mem=64MB"));
}

#[test]
fn channel_binding_is_read() {
    for (text, binding) in [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ] {
        assert_eq!(
            postgres(&format!("{POSTGRES}?channel_binding={text}")).channel_binding,
            binding
        );
    }
    assert!(refusal(&format!("{POSTGRES}?channel_binding=always")).contains("disable, prefer"));
    let message = refusal(&format!(
        "{POSTGRES}?channel_binding=require&sslmode=disable"
    ));
    assert!(
        message.contains("channel_binding=require cannot be kept"),
        "{message}"
    );
}

#[test]
fn reading_from_replicas_is_refused_where_it_cannot_be_kept() {
    const PAIR: &str = "postgres://me@one,two/shop?read_from=replica";
    config(&format!("{POSTGRES}?read_from=primary"));
    assert!(refusal(&format!("{POSTGRES}?read_from=replica")).contains("more than one host"));
    for (more, complaint) in [
        ("pgbouncer=true", "behind a pooler"),
        ("target_session_attrs=standby", "must find the server"),
        ("target_session_attrs=any", "must find the server"),
        ("connection_limit=1", "at least 2"),
        ("max_replica_lag=0", "max_replica_lag"),
    ] {
        let message = refusal(&format!("{PAIR}&{more}"));
        assert!(message.contains(complaint), "{more}: {message}");
    }
    let target = postgres(&format!("{PAIR}&max_replica_lag=3s"));
    assert_eq!(target.read_from, ReadFrom::Replica);
    assert_eq!(target.max_replica_lag, Duration::from_secs(3));
    assert_eq!(postgres(PAIR).max_replica_lag, Duration::from_secs(10));
}

#[test]
fn parameters_of_sqlite_are_read() {
    assert_eq!(
        sqlite(&format!("{SQLITE}?durability=full")).durability,
        Durability::Full
    );
    assert_eq!(
        sqlite(&format!("{SQLITE}?durability=relaxed")).durability,
        Durability::Relaxed
    );
    assert!(refusal(&format!("{SQLITE}?durability=none")).contains("full, relaxed"));
    for (text, milliseconds) in [("2", 2_000), ("150ms", 150), ("0", 0)] {
        let url = format!("{SQLITE}?busy_timeout={text}");
        assert_eq!(
            sqlite(&url).busy_timeout,
            Duration::from_millis(milliseconds),
            "{url}"
        );
    }
    assert!(refusal(&format!("{SQLITE}?busy_timeout=5000")).contains("write the unit"));
    for (text, probe, network) in [
        ("", false, false),
        ("?write_probe", true, false),
        ("?write_probe=false&network_file_system=allow", false, true),
        ("?network_file_system=refuse", false, false),
    ] {
        let target = sqlite(&format!("{SQLITE}{text}"));
        assert_eq!(
            (target.write_probe, target.network_file_system),
            (probe, network),
            "{text}"
        );
    }
}

#[test]
fn socket_timeout_means_what_prisma_means_on_each_database() {
    let seven = Duration::from_secs(7);
    assert_eq!(
        config(&format!("{POSTGRES}?socket_timeout=7")).timeout,
        seven
    );
    assert_eq!(
        sqlite(&format!("{SQLITE}?socket_timeout=7")).busy_timeout,
        seven
    );
    assert_eq!(
        config(&format!("{SQLITE}?socket_timeout=7")).timeout,
        Duration::from_secs(30)
    );
    for url in [
        format!("{POSTGRES}?socket_timeout=7&timeout=7"),
        format!("{SQLITE}?busy_timeout=7&socket_timeout=7"),
    ] {
        assert!(refusal(&url).contains("two names of one setting"), "{url}");
    }
}

#[test]
fn settings_must_fit_together() {
    let message = refusal(&format!("{SQLITE}?min_connections=5&connection_limit=4"));
    assert!(
        message.contains("min_connections (5) is more than connection_limit (4)"),
        "{message}"
    );
    config(&format!("{SQLITE}?min_connections=4&connection_limit=4"));
}

#[test]
fn a_configuration_made_by_hand_is_checked_as_well() {
    type Spoil = fn(&mut Config);
    let spoilt: [(&str, Spoil); 7] = [
        ("connection_limit", |c| c.connection_limit = 0),
        ("connection_limit", |c| c.connection_limit = usize::MAX),
        ("max_waiters", |c| c.max_waiters = 0),
        ("timeout", |c| c.timeout = Duration::ZERO),
        ("connect_timeout", |c| c.connect_timeout = Duration::ZERO),
        ("statement_timeout", |c| {
            c.statement_timeout = Some(Duration::ZERO)
        }),
        ("ride_through", |c| c.ride_through = Duration::MAX),
    ];
    for (name, spoil) in spoilt {
        let mut config = config(POSTGRES);
        config.check().unwrap();
        spoil(&mut config);
        assert!(
            config.check().unwrap_err().message().contains(name),
            "{name}"
        );
    }
}

#[test]
fn every_parameter_in_the_table_is_accepted_or_refused_by_its_own_name() {
    for parameter in PARAMETERS {
        let base = if parameter.applies == Applies::Sqlite {
            SQLITE
        } else {
            "postgres://db/shop"
        };
        let message = refusal(&format!("{base}?{}=", parameter.name));
        assert!(
            message.starts_with(&format!("{} is empty", parameter.name)),
            "{message}"
        );
    }
}

#[test]
fn the_defaults_in_the_table_are_the_defaults_in_the_code() {
    let mut compared = 0;
    for parameter in PARAMETERS {
        if parameter.default == "-" || parameter.name == "connection_limit" {
            continue;
        }
        let base = if parameter.applies == Applies::Sqlite {
            SQLITE
        } else {
            "postgres://db/shop"
        };
        let given = config(&format!("{base}?{}={}", parameter.name, parameter.default));
        assert_eq!(
            format!("{given:?}"),
            format!("{:?}", config(base)),
            "{}",
            parameter.name
        );
        compared += 1;
    }
    assert!(compared >= 20, "only {compared} defaults were compared");
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(config(SQLITE).connection_limit, cores * 2 + 1);
}
