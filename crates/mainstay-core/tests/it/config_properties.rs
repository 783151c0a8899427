//! What holds for every text, not only for the ones that somebody thought of.

use mainstay_core::config::{PARAMETERS, Target};
use mainstay_core::{Config, Error, Kind};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use std::error::Error as _;

/// Everything that an error can show to anybody.
fn shown(error: &Error) -> String {
    format!("{error} {error:?} {error:#?} {:?}", error.source())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn parameter_name() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..PARAMETERS.len()).prop_map(|index| PARAMETERS[index].name.to_owned()),
        "[a-z_]{0,20}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        if let Err(error) = Config::from_url(&text) {
            prop_assert_eq!(error.kind(), Kind::Config);
        }
    }

    #[test]
    fn nothing_behind_a_known_scheme_makes_the_parser_panic(
        scheme in prop_oneof![
            Just("postgres://"), Just("postgresql://"), Just("file:"), Just("file://"),
            Just("sqlite:"), Just(":memory:"), Just("mysql://"),
        ],
        rest in r"([a-z0-9@:/?#&=%,.\[\]é \-+]|%[0-9a-fA-F]{2}){0,40}",
    ) {
        if let Err(error) = Config::from_url(&format!("{scheme}{rest}")) {
            prop_assert_eq!(error.kind(), Kind::Config);
        }
    }

    #[test]
    fn no_parameter_makes_the_parser_panic_and_no_value_is_repeated(
        name in parameter_name(),
        value in "Zq[0-9]{12}[a-z]{0,3}|-?[0-9]{1,30}\\.?[0-9]{0,12}(ms|s|m|h|d)?",
        is_file in any::<bool>(),
    ) {
        let base = if is_file { "file:./dev.db" } else { "postgres://db/shop" };
        if let Err(error) = Config::from_url(&format!("{base}?{name}={value}")) {
            prop_assert_eq!(error.kind(), Kind::Config);
            // A short number may well stand in a message that lists a range.
            prop_assert!(value.len() < 12 || !shown(&error).contains(&value));
        }
    }

    #[test]
    fn no_variable_makes_the_parser_panic_and_its_errors_name_it(
        index in 0..PARAMETERS.len(),
        value in any::<String>(),
    ) {
        let Some(variable) = PARAMETERS[index].environment else { return Ok(()) };
        let read = Config::from_variables(|name| match name {
            "DATABASE_URL" => Some("file:./dev.db".to_owned()),
            _ => (name == variable).then(|| value.clone()),
        });
        if let Err(error) = read {
            let names = [variable, PARAMETERS[index].name];
            prop_assert!(names.iter().any(|name| error.message().contains(name)));
        }
    }

    #[test]
    fn what_is_percent_encoded_comes_back_as_it_was(
        user in "[^\0]{1,20}",
        password in "[^\0]{1,20}",
        database in "[^\0]{1,20}",
        name in "[^\0]{1,20}",
    ) {
        let url = format!(
            "postgres://{}:{}@db/{}?application_name={}",
            encode(&user), encode(&password), encode(&database), encode(&name),
        );
        let config = Config::from_url(&url).unwrap();
        let Target::Postgres(target) = config.target else { panic!("not PostgreSQL") };
        prop_assert_eq!(target.user, user);
        let decoded = target.password.unwrap();
        prop_assert_eq!(decoded.expose(), &password);
        prop_assert_eq!(target.database, database);
        prop_assert_eq!(target.application_name, Some(name));
    }

    /// A password in pieces that no message contains by accident, joined by what people leave
    /// unencoded, in a URL that may be wrong in other ways as well.
    #[test]
    fn no_piece_of_a_password_is_ever_shown(
        pieces in prop::collection::vec("Zq[0-9]{6}", 1..4),
        joint in "[@/#?&=:%,;+ \\[\\]]{0,2}",
        rest in prop_oneof![
            Just("@db/shop"), Just("@db:5432/shop?conection_limit=1"), Just("@:5432/shop"),
            Just("@db/shop?connection_limit=0"), Just("@db:port/shop"), Just("@db/shop?sslmode=x"),
            Just("@[::1/shop"), Just("@db/a/b"), Just("/shop"), Just("@db/shop?sslcert=x"),
        ],
    ) {
        // With its only `@` inside the password, the URL is a good one and that piece is the host.
        prop_assume!(rest.contains('@') || !joint.contains('@'));
        let password = pieces.join(&joint);
        for scheme in ["postgres://", "postgresql://", "mysql://", "prisma://", "postgres:", ""] {
            let shown = match Config::from_url(&format!("{scheme}app:{password}{rest}")) {
                Ok(config) => format!("{config:?} {config:#?} {}", config.target),
                Err(error) => shown(&error),
            };
            for piece in &pieces {
                let is_shown = shown.contains(piece.as_str());
                prop_assert!(!is_shown, "{} shows {}: {}", scheme, piece, shown);
            }
        }
    }

    #[test]
    fn what_is_accepted_passes_the_check(
        limit in 1_u32..300_000, min in 0_u32..300_000, seconds in 0_u64..40_000_000,
    ) {
        let url = format!(
            "file:a.db?connection_limit={limit}&min_connections={min}&pool_timeout={seconds}"
        );
        if let Ok(config) = Config::from_url(&url) {
            prop_assert!(config.check().is_ok());
            prop_assert!(config.min_connections <= config.connection_limit);
        }
    }
}
