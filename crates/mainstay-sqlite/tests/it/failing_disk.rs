//! A disk whose syncs fail on command, in a process of its own: the system's calls are replaced there.

use std::path::PathBuf;
use std::process::Command;

/// Set for the child: syncs fail while this file exists, or hang if it begins with an `h`.
const SIGN: &str = "FAIL_SYNC_WHILE";

/// The file that makes syncs fail while it exists; `None` in a process whose syncs are the system's.
pub(crate) fn sign() -> Option<PathBuf> {
    std::env::var_os(SIGN).map(PathBuf::from)
}

/// Runs the test of this name again in a child whose syncs can be made to fail.
pub(crate) fn in_a_child(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("failing_sync.c");
    std::fs::write(&source, include_str!("../data/failing_sync.c")).unwrap();
    let library = directory.path().join("failing_sync.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(
        compiled.unwrap().success(),
        "the C compiler that built SQLite"
    );
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("LD_PRELOAD", &library)
        .env(SIGN, directory.path().join("fail"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let cried = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}\n{cried}");
    assert!(said.contains("1 passed"), "{said}");
}
