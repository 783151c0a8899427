//! Documents name files, functions and commands; these rules look whether they are there.

use super::Problem;
use super::tree::Tree;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const README: &str = "README.md";

/// What begins like this in backticks is a path from the root.
const ROOTS: [&str; 5] = ["crates/", "examples/", "docs/", "xtask/", ".ci/"];

/// What can stand before the name of an item where it is defined.
const ITEMS: [&str; 9] = [
    "fn",
    "struct",
    "enum",
    "trait",
    "type",
    "const",
    "static",
    "mod",
    "macro_rules!",
];

/// The two commands that a newcomer types.
const COMMANDS: [&str; 2] = ["cargo run --release -p shop", "cargo xtask test"];

/// Every `path` and every `path :: item` of ARCHITECTURE.md exists.
pub(super) fn architecture_paths_exist(tree: &Tree) -> Vec<Problem> {
    let Some(document) = tree.text(ARCHITECTURE) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (index, line) in prose(document) {
        for code in line.split('`').skip(1).step_by(2) {
            if !ROOTS.iter().any(|root| code.starts_with(root)) {
                continue;
            }
            let (path, item) = match code.split_once("::") {
                Some((path, item)) => (path.trim(), Some(item.trim())),
                None => (code.trim(), None),
            };
            if !tree.exists(path) {
                let what = format!("`{path}` does not exist");
                problems.push(Problem::on_line(ARCHITECTURE, index, what));
            } else if let Some(item) = item.filter(|item| !defines(tree.text(path), item)) {
                let what = format!("`{path}` does not define `{item}`");
                problems.push(Problem::on_line(ARCHITECTURE, index, what));
            }
        }
    }
    problems
}

/// `Type::method` and `function()` are looked up by their last name.
fn defines(text: Option<&str>, item: &str) -> bool {
    let item = item.trim_end_matches("()");
    let name = item.rsplit("::").next().unwrap_or(item);
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    text.is_some_and(|text| {
        ITEMS.iter().any(|keyword| {
            let definition = format!("{keyword} {name}");
            text.match_indices(&definition).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                let after = text[at + definition.len()..].chars().next();
                !before.is_some_and(in_name) && !after.is_some_and(in_name)
            })
        })
    })
}

/// Every relative link of every document leads to a file or directory.
pub(super) fn links_lead_somewhere(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.with_extension("md") {
        for (index, line) in prose(&file.text) {
            for target in links(line) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains(':') {
                    continue; // a place in the same document, or a URL with its scheme
                }
                if !resolve(&file.path, path).is_some_and(|path| tree.exists(&path)) {
                    let what = format!("the link to `{target}` leads nowhere");
                    problems.push(Problem::on_line(&file.path, index, what));
                }
            }
        }
    }
    problems
}

/// The README names the two commands that a newcomer types.
pub(super) fn readme_names_both_commands(tree: &Tree) -> Vec<Problem> {
    let Some(readme) = tree.text(README) else {
        return vec![Problem::at(README, "is missing")];
    };
    let unnamed = COMMANDS.iter().filter(|command| !readme.contains(*command));
    unnamed
        .map(|command| Problem::at(README, format!("does not name `{command}`")))
        .collect()
}

/// The numbered lines outside of fenced blocks.
fn prose(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    document.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// The targets of `[text](target)` and `[text](target "title")`, code spans left out.
fn links(line: &str) -> Vec<String> {
    let without_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    without_code
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
        .map(|target| target.trim_matches(['<', '>']).to_owned())
        .collect()
}

/// The path from the root of what a document links to; `None` outside of the repository.
fn resolve(document: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => document.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    const SOURCE: (&str, &str) = (
        "crates/a/src/b.rs",
        "pub(crate) fn acquire<T>() {}\nenum Kind {}",
    );

    #[test]
    fn paths_and_items_that_exist_pass() {
        let document = "`crates/a/src/b.rs :: acquire`, `crates/a/src/b.rs :: Kind`, `crates/a/`,\n\
                        `crates/a/src/b.rs::Pool::acquire()`, `cargo test`\n```\n`crates/none`\n```";
        let tree = Tree::of(&[SOURCE, (ARCHITECTURE, document)]);
        assert_eq!(whats(&architecture_paths_exist(&tree)), [""; 0]);
    }

    #[test]
    fn paths_and_items_that_do_not_exist_are_found() {
        let document = "see\n`crates/a/src/c.rs` and `crates/a/src/b.rs :: acq`";
        let tree = Tree::of(&[SOURCE, (ARCHITECTURE, document)]);
        assert_eq!(
            whats(&architecture_paths_exist(&tree)),
            [
                "ARCHITECTURE.md:2: `crates/a/src/c.rs` does not exist",
                "ARCHITECTURE.md:2: `crates/a/src/b.rs` does not define `acq`",
            ]
        );
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "[a](../README.md#top) [b](https://example.org/x) [c](#here) [d](./e.md \"E\") `[f](g)`";
        let tree = Tree::of(&[
            ("README.md", "[docs](docs)"),
            ("docs/d.md", text),
            ("docs/e.md", ""),
        ]);
        assert_eq!(whats(&links_lead_somewhere(&tree)), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_or_outside_are_found() {
        let tree = Tree::of(&[("docs/d.md", "[a](x.md) and [b](../../etc/passwd)")]);
        assert_eq!(
            whats(&links_lead_somewhere(&tree)),
            [
                "docs/d.md:1: the link to `x.md` leads nowhere",
                "docs/d.md:1: the link to `../../etc/passwd` leads nowhere",
            ]
        );
    }

    #[test]
    fn a_readme_with_one_command_lacks_the_other() {
        let both = COMMANDS.join("\n");
        assert_eq!(
            whats(&readme_names_both_commands(&Tree::of(&[(README, &both)]))),
            [""; 0]
        );
        let one = Tree::of(&[(README, COMMANDS[0])]);
        assert_eq!(
            whats(&readme_names_both_commands(&one)),
            ["README.md: does not name `cargo xtask test`"]
        );
        assert_eq!(
            whats(&readme_names_both_commands(&Tree::of(&[]))),
            ["README.md: is missing"]
        );
    }
}
