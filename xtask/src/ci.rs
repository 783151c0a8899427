//! `cargo xtask ci`: the whole gate.

use std::path::Path;

use crate::steps::{Steps, shown, succeeds};
use crate::{test, tidy};

/// Runs every step, also after a failure.
pub(crate) fn run(root: &Path) -> bool {
    let mut steps = Steps::default();
    steps.run("tools", || tools(root));
    steps.run("format", || {
        shown(root, &["cargo", "fmt", "--all", "--", "--check"], &[])
    });
    steps.run("lints", || {
        let clippy = [
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        shown(root, &clippy, &[])
    });
    steps.run("docs", || {
        let doc = ["cargo", "doc", "--no-deps", "--workspace"];
        shown(root, &doc, &[("RUSTDOCFLAGS", "-Dwarnings")])
    });
    steps.run("tidy", || tidy::run(root));
    steps.run("other drivers", || other_drivers(root));
    steps.run("test", || test::run(root, &[]));
    steps.finish()
}

/// What errors of other drivers mean. These features are off by default and stay out of the other
/// steps, so that nobody who leaves them out builds two more drivers.
fn other_drivers(root: &Path) -> bool {
    let features = ["-p", "mainstay", "--features", "sqlx,diesel"];
    let clippy = [
        &["cargo", "clippy"],
        &features[..],
        &["--", "-D", "warnings"],
    ]
    .concat();
    let tests = [&["cargo", "test"], &features[..], &["--lib", "classify"]].concat();
    shown(root, &clippy, &[]) && shown(root, &tests, &[])
}

/// A minimal toolchain comes without rustfmt and clippy.
fn tools(root: &Path) -> bool {
    let lacking: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| !succeeds("cargo", &[command, "--version"]))
        .map(|(_, component)| component)
        .collect();
    if lacking.is_empty() {
        println!("rustfmt and clippy are there");
        return true;
    }
    let mut add = vec!["rustup", "component", "add"];
    add.extend(lacking);
    shown(root, &add, &[])
}
