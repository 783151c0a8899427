//! Who may use whom is the architecture. The table in ARCHITECTURE.md says it to people, the
//! manifests say it to cargo, and this rule says whether they agree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Problem;
use super::tree::Tree;

const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Who may use whom";

type Uses = BTreeMap<String, BTreeSet<String>>;

/// The table lists every member with exactly the members that it uses outside of tests.
pub(super) fn table_matches(tree: &Tree, metadata: &Value) -> Vec<Problem> {
    let Some(document) = tree.text(DOCUMENT) else {
        return vec![Problem::at(DOCUMENT, "is missing")];
    };
    let table = table(document);
    if table.is_empty() {
        return vec![Problem::at(
            DOCUMENT,
            format!("has no table under `{HEADING}`"),
        )];
    }
    let used = used(metadata);
    let mut problems = Vec::new();
    for (member, uses) in &used {
        match table.get(member) {
            None => problems.push(Problem::at(DOCUMENT, format!("the table lacks `{member}`"))),
            Some(allowed) if allowed != uses => problems.push(Problem::at(
                DOCUMENT,
                format!(
                    "`{member}` uses {}, the table says {}",
                    list(uses),
                    list(allowed)
                ),
            )),
            Some(_) => {}
        }
    }
    let strangers = table.keys().filter(|name| !used.contains_key(*name));
    problems.extend(strangers.map(|name| {
        Problem::at(
            DOCUMENT,
            format!("the table lists `{name}`, which is no member"),
        )
    }));
    problems
}

/// Rows look like ``| `crate` | `one`, `other` | why |``, or `none` in the second column.
fn table(document: &str) -> Uses {
    let section = document
        .lines()
        .skip_while(|line| line.trim() != HEADING)
        .skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let rows = section.filter_map(|line| {
        let mut cells = line.trim().strip_prefix('|')?.split('|');
        let member = in_backticks(cells.next()?).next()?.to_owned();
        let uses = in_backticks(cells.next()?)
            .filter(|name| *name != "none")
            .map(str::to_owned);
        Some((member, uses.collect()))
    });
    rows.collect()
}

fn in_backticks(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn used(metadata: &Value) -> Uses {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let members: BTreeSet<&str> = packages()
        .filter_map(|package| package["name"].as_str())
        .collect();
    packages()
        .filter_map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let uses = dependencies
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| dependency["name"].as_str())
                .filter(|name| members.contains(name))
                .map(str::to_owned);
            Some((package["name"].as_str()?.to_owned(), uses.collect()))
        })
        .collect()
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cargo() -> Value {
        let on = |name: &str, kind: Value| json!({ "name": name, "kind": kind });
        json!({ "packages": [
            { "name": "leaf", "dependencies": [on("serde", Value::Null), on("top", json!("dev"))] },
            { "name": "tool", "dependencies": [] },
            { "name": "top", "dependencies": [on("leaf", Value::Null), on("tool", json!("build"))] },
        ] })
    }

    fn problems(rows: &str) -> Vec<String> {
        let document = format!(
            "# A\n| `ghost` | `none` |\n{HEADING}\n\n| crate | may use | why |\n|---|---|---|\n{rows}\n## Next\n| `ghost` | `none` |\n"
        );
        let tree = Tree::of(&[(DOCUMENT, &document)]);
        table_matches(&tree, &cargo())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_true_table_passes_and_test_dependencies_do_not_count() {
        let rows = "| `leaf` | `none` | |\n| `tool` | none | |\n| `top` | `leaf`, `tool` | `x` |";
        assert_eq!(problems(rows), [""; 0]);
    }

    #[test]
    fn a_wrong_row_a_missing_row_and_a_row_too_many_are_found() {
        let found = problems("| `leaf` | `top` | |\n| `top` | `leaf` | |\n| `gone` | `none` | |");
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md: `leaf` uses none, the table says `top`",
                "ARCHITECTURE.md: the table lacks `tool`",
                "ARCHITECTURE.md: `top` uses `leaf`, `tool`, the table says `leaf`",
                "ARCHITECTURE.md: the table lists `gone`, which is no member",
            ]
        );
    }

    #[test]
    fn a_missing_table_is_found() {
        let tree = Tree::of(&[(DOCUMENT, "# Nothing here")]);
        assert!(table_matches(&tree, &cargo())[0].what.contains("no table"));
        assert!(
            table_matches(&Tree::of(&[]), &cargo())[0]
                .what
                .contains("missing")
        );
    }
}
