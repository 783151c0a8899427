//! The tree is the map: what lies where is a promise to the reader.

use super::Problem;
use super::tree::Tree;

const MANIFEST: &str = "Cargo.toml";

/// The two backends, which are read side by side.
const BACKENDS: [&str; 2] = ["crates/mainstay-postgres/src", "crates/mainstay-sqlite/src"];

/// The files that each of them has, so that whoever knows one finds the way in the other.
const FILES: [&str; 9] = [
    "connect",
    "session",
    "classify",
    "read_lane",
    "write_lane",
    "transaction",
    "health",
    "migrate",
    "backup",
];

/// Every member of the workspace says in one line what it is for.
pub(super) fn members_have_comments(tree: &Tree) -> Vec<Problem> {
    let manifest = tree.text(MANIFEST).unwrap_or_default();
    let members: Vec<(usize, &str)> = manifest
        .lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "members = [")
        .skip(1)
        .take_while(|(_, line)| line.trim() != "]")
        .filter(|(_, line)| line.trim_start().starts_with('"'))
        .collect();
    if members.is_empty() {
        return vec![Problem::at(MANIFEST, "lists no members, one a line")];
    }
    let silent = members.into_iter().filter(|(_, line)| {
        line.split_once('#')
            .is_none_or(|(_, comment)| comment.trim().is_empty())
    });
    silent
        .map(|(index, line)| {
            let what = format!("{} has no comment that says what it is", line.trim());
            Problem::on_line(MANIFEST, index, what)
        })
        .collect()
}

/// Both backends have the same files.
pub(super) fn backends_are_siblings(tree: &Tree) -> Vec<Problem> {
    let pairs = BACKENDS
        .iter()
        .flat_map(|backend| FILES.iter().map(move |file| (backend, file)));
    pairs
        .filter(|(backend, file)| {
            !tree.exists(&format!("{backend}/{file}.rs"))
                && !tree.exists(&format!("{backend}/{file}/mod.rs"))
        })
        .map(|(backend, file)| Problem::at(*backend, format!("lacks {file}.rs")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_a_comment_is_found() {
        let manifest = "[workspace]\nmembers = [\n  \"a\", # does a\n  \"b\",\n  \"c\", #\n]\n";
        let found = members_have_comments(&Tree::of(&[(MANIFEST, manifest)]));
        let places: Vec<&str> = found.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, ["Cargo.toml:4", "Cargo.toml:5"]);
        assert_eq!(members_have_comments(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn members_with_comments_pass() {
        let manifest =
            "members = [\n  # all of them\n  \"a\", # does a\n]\ndefault = [\n\"b\"\n]\n";
        assert_eq!(
            members_have_comments(&Tree::of(&[(MANIFEST, manifest)])),
            []
        );
    }

    #[test]
    fn a_backend_that_lacks_a_file_of_its_sibling_is_found() {
        let all: Vec<String> = BACKENDS
            .iter()
            .flat_map(|backend| FILES.iter().map(move |file| format!("{backend}/{file}.rs")))
            .collect();
        let mut files: Vec<(&str, &str)> = all.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(backends_are_siblings(&Tree::of(&files)), []);
        files.pop();
        let expected = Problem::at("crates/mainstay-sqlite/src", "lacks backup.rs");
        assert_eq!(backends_are_siblings(&Tree::of(&files)), [expected]);
    }
}
