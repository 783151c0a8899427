//! Rules about source text. What is searched for is put together from pieces here, because this
//! file is searched as well.

use super::Problem;
use super::tree::{File, Tree};

/// Where a file should have been split; its tests do not count.
const LONGEST: usize = 600;

const UNFINISHED: [&str; 2] = [concat!("todo", "!("), concat!("unimplemented", "!(")];
const IGNORED: &str = concat!("#[", "ignore");
const SLEEPS: [&str; 2] = [concat!("time::", "sleep("), concat!("thread::", "sleep(")];
const LOCAL: [&str; 3] = [
    concat!("/", "work"),
    concat!("/", "root"),
    concat!("../", "shared"),
];

/// Words that say nothing about what carries them.
const EMPTY_WORDS: [&str; 11] = [
    "inner",
    "internals",
    "manager",
    "helper",
    "helpers",
    "util",
    "utils",
    "common",
    "shared",
    "handy",
    "misc",
];

/// What a definition begins with, and whether its name is a type's or module's.
const NAMED: [&str; 5] = ["struct ", "enum ", "trait ", "type ", "mod "];

/// The two names with `get_` that the standard library made a convention.
const KNOWN_GETTERS: [&str; 2] = ["get_mut", "get_ref"];

/// No file is longer than a reader can hold.
pub(super) fn files_are_short(tree: &Tree) -> Vec<Problem> {
    let sources = tree.with_extension("rs").filter(|file| !file.is_test());
    sources
        .filter_map(|file| {
            let length = without_tests(&file.text).count();
            let what = format!("has {length} lines without its tests; {LONGEST} is the most");
            (length > LONGEST).then(|| Problem::at(&file.path, what))
        })
        .collect()
}

/// Types, modules and files have names that say what they are; getters are named by what they give.
pub(super) fn names_say_something(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.with_extension("rs") {
        let stem = file
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        if EMPTY_WORDS.contains(&stem) {
            problems.push(Problem::at(&file.path, format!("`{stem}` says nothing")));
        }
        for (index, line) in file.text.lines().enumerate() {
            if let Some(name) = defined_name(line).filter(|name| is_empty_name(name)) {
                let what = format!("`{name}` says nothing");
                problems.push(Problem::on_line(&file.path, index, what));
            }
            if let Some(name) = getter(line) {
                let what = format!("`{name}`: a getter is named by what it gives");
                problems.push(Problem::on_line(&file.path, index, what));
            }
        }
    }
    problems
}

/// Nothing is committed half done.
pub(super) fn nothing_is_left_to_do(tree: &Tree) -> Vec<Problem> {
    lines_with(tree.with_extension("rs"), &UNFINISHED, "is not finished")
}

/// A test that does not run is not there.
pub(super) fn no_test_is_ignored(tree: &Tree) -> Vec<Problem> {
    lines_with(tree.with_extension("rs"), &[IGNORED], "hides a test")
}

/// Tests wait for facts, not for time.
pub(super) fn tests_do_not_sleep(tree: &Tree) -> Vec<Problem> {
    let tests = tree.with_extension("rs").filter(|file| file.is_test());
    lines_with(
        tests,
        &SLEEPS,
        "waits for time to pass instead of for a fact",
    )
}

/// Nothing points to the machine on which it was written.
pub(super) fn no_local_paths(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files() {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(path) = LOCAL.iter().find(|path| holds_path(line, path)) {
                let what = format!("`{path}` exists on one machine only");
                problems.push(Problem::on_line(&file.path, index, what));
            }
        }
    }
    problems
}

/// Every source file begins by saying what problem it solves; tests say it with their names.
pub(super) fn modules_say_what_they_are_for(tree: &Tree) -> Vec<Problem> {
    let sources = tree
        .with_extension("rs")
        .filter(|file| !file.is_test() && !file.text.trim().is_empty());
    sources
        .filter(|file| {
            let mut lines = file.text.lines().map(str::trim);
            !lines
                .find(|line| !line.is_empty())
                .is_some_and(|line| line.starts_with("//!"))
        })
        .map(|file| Problem::at(&file.path, "does not begin with `//!` and what it is for"))
        .collect()
}

/// The lines before the tests at the end of the file.
fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

fn lines_with<'a>(
    files: impl Iterator<Item = &'a File>,
    needles: &[&str],
    why: &str,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(needle) = needles.iter().find(|needle| line.contains(*needle)) {
                problems.push(Problem::on_line(
                    &file.path,
                    index,
                    format!("`{needle}` {why}"),
                ));
            }
        }
    }
    problems
}

/// The name that a line defines as a type or a module.
fn defined_name(line: &str) -> Option<&str> {
    let item = without_visibility(line.trim_start());
    let rest = NAMED
        .iter()
        .find_map(|keyword| item.strip_prefix(keyword))?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    Some(&rest[..end])
}

fn getter(line: &str) -> Option<&str> {
    let item = without_visibility(line.trim_start());
    let item = ["const ", "async ", "unsafe "]
        .iter()
        .fold(item, |item, word| item.strip_prefix(word).unwrap_or(item));
    let rest = item.strip_prefix("fn ")?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let name = &rest[..end];
    (name.starts_with("get_") && !KNOWN_GETTERS.contains(&name)).then_some(name)
}

fn without_visibility(item: &str) -> &str {
    let Some(rest) = item.strip_prefix("pub") else {
        return item;
    };
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
        None => rest,
    };
    rest.trim_start()
}

/// `PoolInner`, `inner` and `inner_pool` all carry an empty word.
fn is_empty_name(name: &str) -> bool {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words
        .iter()
        .any(|word| EMPTY_WORDS.contains(&word.as_str()))
}

/// Whether a line holds the path itself: not as the end of a longer name before it, and not as the
/// beginning of a longer name behind it.
fn holds_path(line: &str, path: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '}' | ']' | '.' | '*');
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let continued = after.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        !before.is_some_and(in_name) && !continued
    })
}

#[cfg(test)]
mod tests;
