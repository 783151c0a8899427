//! Each rule on a file that breaks it and on one that does not.

use super::*;

fn found(rule: fn(&Tree) -> Vec<Problem>, files: &[(&str, &str)]) -> Vec<String> {
    rule(&Tree::of(files))
        .iter()
        .map(|problem| problem.place.clone())
        .collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "x\n".repeat(601);
    let tested = format!("{}#[cfg(test)]\nmod tests {{}}\n{long}", "x\n".repeat(600));
    let files = [
        ("a/src/long.rs", long.as_str()),
        ("a/src/tested.rs", &tested),
        ("a/src/pool/tests.rs", &long),
        ("a/tests/it/long.rs", &long),
        ("long.md", &long),
    ];
    assert_eq!(found(files_are_short, &files), ["a/src/long.rs"]);
}

#[test]
fn names_that_say_nothing_are_found() {
    let text = "pub(crate) struct PoolInner;\nmod util;\nenum HelperKind {}\npub fn get_row() {}";
    let lines = found(names_say_something, &[("a.rs", text)]);
    assert_eq!(lines, ["a.rs:1", "a.rs:2", "a.rs:3", "a.rs:4"]);
    assert_eq!(
        found(names_say_something, &[("a/src/utils.rs", "")]),
        ["a/src/utils.rs"]
    );
}

#[test]
fn names_that_say_something_pass() {
    let text = "struct Ledger;\n// the inner struct Inner\nstruct Utility;\nfn get_mut() {}\n\
                fn target() {}\nlet manager = 1;\nimpl Common {}";
    assert_eq!(
        found(names_say_something, &[("a/winner.rs", text)]),
        NOTHING
    );
}

#[test]
fn unfinished_code_is_found() {
    let text = format!("fn a() {{\n    {})\n}}", UNFINISHED[0]);
    assert_eq!(found(nothing_is_left_to_do, &[("a.rs", &text)]), ["a.rs:2"]);
    assert_eq!(
        found(
            nothing_is_left_to_do,
            &[("a.rs", "// what to do!\ntodo();")]
        ),
        NOTHING
    );
}

#[test]
fn an_ignored_test_is_found() {
    let text = format!("#[test]\n{} = \"slow\"]\nfn a() {{}}", IGNORED);
    assert_eq!(found(no_test_is_ignored, &[("a.rs", &text)]), ["a.rs:2"]);
    assert_eq!(
        found(no_test_is_ignored, &[("a.rs", "#[test]\nfn ignored() {}")]),
        NOTHING
    );
}

#[test]
fn a_sleep_is_found_in_tests_only() {
    for sleep in SLEEPS {
        let text = format!("tokio::{sleep}ten)");
        let files = [("a/tests/it/b.rs", text.as_str()), ("a/src/wait.rs", &text)];
        assert_eq!(found(tests_do_not_sleep, &files), ["a/tests/it/b.rs:1"]);
    }
    assert_eq!(
        found(tests_do_not_sleep, &[("a/tests/b.rs", "wait_for(ten)")]),
        NOTHING
    );
}

#[test]
fn paths_of_one_machine_are_found() {
    for path in LOCAL {
        let text = format!("fine\nsee `{path}/x`");
        assert_eq!(
            found(no_local_paths, &[("docs/a.md", &text)]),
            ["docs/a.md:2"]
        );
    }
    let fine = format!("a{}, {}load, ${{b}}{}", LOCAL[0], LOCAL[0], LOCAL[1]);
    assert_eq!(found(no_local_paths, &[("a.sh", &fine)]), NOTHING);
}

#[test]
fn a_file_that_does_not_say_what_it_is_for_is_found() {
    let files = [
        ("a.rs", "use std::io;\n//! late"),
        ("b.rs", "\n//! why\nuse std::io;"),
        ("b/tests.rs", "use super::*;"),
    ];
    assert_eq!(found(modules_say_what_they_are_for, &files), ["a.rs"]);
}
