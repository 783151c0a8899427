//! The gate of this repository. Everything that decides whether a change is good is one command,
//! the same on a laptop and in CI, so that nobody has to remember a list: `cargo xtask ci`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal: what it does and finds is its output"
)]

mod ci;
mod postgres;
mod proof;
mod range;
mod steps;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci      everything below, after format, lints and documentation
  tidy    the rules of this repository that no other tool knows
  test    every test on both databases; installs PostgreSQL if there is none
          (what follows is passed to `cargo test --workspace`)
  sqlite-range
          the SQLite backend with the oldest and the newest rusqlite that is allowed, in a copy
  proof   a promise, tried for longer than a test may take: `proof <name>`";

fn usage() -> String {
    format!("{USAGE}\n          of {}\n", proof::names())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let root = repository();
    let good = match command.as_str() {
        "ci" if rest.is_empty() => ci::run(&root),
        "tidy" if rest.is_empty() => tidy::run(&root),
        "test" => test::run(&root, &rest),
        "proof" if rest.len() == 1 && proof::is_known(&rest[0]) => proof::run(&root, &rest[0]),
        "sqlite-range" if rest.is_empty() => range::run(&root),
        "help" | "--help" | "-h" => {
            print!("{}", usage());
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{}", usage());
            return ExitCode::from(2);
        }
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The parent of this package, wherever the command was called.
fn repository() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().map_or(package.clone(), PathBuf::from)
}
