//! `cargo xtask tidy`: rules that the compiler and clippy cannot know. A rule that nobody checks is
//! a wish, and a document that nobody compares with the code is wrong within a month.
//!
//! Each rule is a function from the repository's files to what is wrong with them, tested on a few
//! invented files.

mod dependencies;
mod documents;
mod layout;
mod sources;
mod tree;

use std::fmt;
use std::path::Path;
use std::process::Command;

use self::tree::Tree;

/// Something that is not as the rules want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// A file, with a line where there is one.
    place: String,
    what: String,
}

impl Problem {
    fn at(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    fn on_line(path: &str, index: usize, what: impl Into<String>) -> Self {
        Self::at(format!("{path}:{}", index + 1), what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

type Rule = fn(&Tree) -> Vec<Problem>;

/// In the order in which they are read best; each prints its own findings.
const RULES: [Rule; 12] = [
    documents::architecture_paths_exist,
    documents::links_lead_somewhere,
    documents::readme_names_both_commands,
    layout::members_have_comments,
    layout::backends_are_siblings,
    sources::files_are_short,
    sources::names_say_something,
    sources::nothing_is_left_to_do,
    sources::no_test_is_ignored,
    sources::tests_do_not_sleep,
    sources::no_local_paths,
    sources::modules_say_what_they_are_for,
];

/// Checks every rule and prints what is wrong.
pub(crate) fn run(root: &Path) -> bool {
    let found = Tree::read(root).and_then(|tree| {
        let mut problems = dependencies::table_matches(&tree, &metadata(root)?);
        problems.extend(RULES.iter().flat_map(|rule| rule(&tree)));
        Ok(problems)
    });
    match found {
        Ok(problems) if problems.is_empty() => {
            println!("tidy: {} rules hold", RULES.len() + 1);
            true
        }
        Ok(problems) => {
            for problem in &problems {
                println!("{problem}");
            }
            println!("tidy: {} problems", problems.len());
            false
        }
        Err(error) => {
            eprintln!("tidy could not read the repository: {error}");
            false
        }
    }
}

fn metadata(root: &Path) -> std::io::Result<serde_json::Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
