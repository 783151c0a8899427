//! One document on standard output, whatever happened.

use crate::bed::{Bed, Ran, bare};
use crate::on_both;

on_both!(every_command_speaks_json);

fn every_command_speaks_json(bed: &Bed) {
    let commands: [&[&str]; 8] = [
        &["init"],
        &["check"],
        &["deploy"],
        &["status"],
        &["seed", "--file", "seed.sql"],
        &["backup", "copy"],
        &["backup", "copy", "--force"],
        &["reset", "--force"],
    ];
    bed.write("seed.sql", "insert into notes (id, body) values (1, 'a');");
    let system = if bed.infix == "sqlite" {
        "sqlite"
    } else {
        "postgresql"
    };
    for command in commands {
        let mut args = command.to_vec();
        args.push("--json");
        let ran = bed.done(&args);
        assert_eq!(ran.err, "", "{command:?}");
        let document = ran.document();
        assert_eq!(document["command"], command[0], "{document}");
        assert_eq!(document["database"]["system"], system, "{document}");
        assert_eq!(document["database"]["name"], *bed.name, "{document}");
        assert!(document.get("error").is_none(), "{document}");
    }
}

#[test]
fn wrong_arguments_are_told_in_the_listener_s_language() {
    let human = Ran::of(bare(&["chekc"]));
    assert_eq!((human.code, human.out.as_str()), (Some(2), ""));
    assert!(human.err.contains("check"), "{human:?}");
    let machine = Ran::of(bare(&["chekc", "--json"]));
    assert_eq!((machine.code, machine.err.as_str()), (Some(2), ""));
    assert_eq!(machine.document()["error"]["kind"], "usage");
}

#[test]
fn help_and_version_are_results() {
    let version = Ran::of(bare(&["--version"]));
    assert_eq!(version.code, Some(0));
    assert_eq!(
        version.out,
        format!("mainstay {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = Ran::of(bare(&["--help"]));
    assert_eq!(help.code, Some(0));
    for word in [
        "Examples:",
        "Exit codes:",
        "130",
        "DATABASE_URL",
        "--migrations",
        "backup",
    ] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
    let nothing = Ran::of(bare(&[]));
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.err.contains("Usage:"), "{nothing:?}");
}

#[test]
fn help_does_not_show_what_the_environment_holds() {
    let mut command = bare(&["check", "--help"]);
    command.env("DATABASE_URL", "postgres://app:hunter2@db/app");
    let ran = Ran::of(command);
    assert!(
        ran.out.contains("DATABASE_URL") && !ran.out.contains("hunter2"),
        "{ran:?}"
    );
}

#[test]
fn a_misspelt_variable_is_said_aloud() {
    let bed = Bed::sqlite();
    bed.done(&["init"]);
    let mut command = bed.command(&["check"]);
    command.env("DB_CONECTION_LIMIT", "3");
    let ran = Ran::of(command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.err.contains("did you mean DB_CONNECTION_LIMIT?"),
        "{ran:?}"
    );
}

#[test]
fn the_readme_names_every_command_and_option() {
    let readme = include_str!("../../README.md");
    for command in [
        "check",
        "init",
        "status",
        "deploy",
        "reset",
        "seed",
        "backup FILE",
    ] {
        assert!(readme.contains(&format!("| `{command}` |")), "{command}");
    }
    let help = Ran::of(bare(&["check", "--help"])).out;
    for option in ["--url", "--migrations", "--json", "--quiet", "--verbose"] {
        assert!(readme.contains(option) && help.contains(option), "{option}");
    }
}
