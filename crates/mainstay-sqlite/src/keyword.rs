//! The first keyword of a text, behind comments and whatever else may stand before it.

use mainstay_core::backend::Presumption;

/// Says what the text alone tells.
pub(crate) fn presume(text: &str) -> Presumption {
    Presumption::of_keyword(first_word(text))
}

/// Whether the text holds no statement at all.
pub(crate) fn is_blank(text: &str) -> bool {
    skip_to_statement(text).is_empty()
}

/// Whether a text may share a transaction with those of strangers: what only reads or changes rows.
/// Definitions change what the others have prepared, and `vacuum` cannot be in a transaction at all.
pub(crate) fn may_share_a_transaction(text: &str) -> bool {
    const MAY: [&str; 7] = [
        "insert", "update", "delete", "replace", "with", "select", "values",
    ];
    let word = first_word(text);
    MAY.iter().any(|may| may.eq_ignore_ascii_case(word))
}

fn first_word(text: &str) -> &str {
    let rest = skip_to_statement(text);
    let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    &rest[..end.unwrap_or(rest.len())]
}

/// Skips white space, comments, parentheses and semicolons. Block comments nest, as PostgreSQL's
/// do; what SQLite makes of a nested one is a syntax error either way.
fn skip_to_statement(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|letter: char| {
            letter.is_whitespace() || matches!(letter, '(' | ';' | '\u{feff}')
        });
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            after_block_comment(comment)
        } else {
            return rest;
        };
    }
}

fn after_block_comment(comment: &str) -> &str {
    let bytes = comment.as_bytes();
    let (mut depth, mut at) = (1_usize, 0);
    while at < bytes.len() {
        match bytes[at..] {
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return &comment[at..];
                }
            }
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keyword_is_found_behind_comments_and_parentheses() {
        let writes = [
            "insert into t values (1)",
            "  UPDATE t set a = 1",
            "-- why\ndelete from t",
            "/* a /* nested */ one */ Replace into t values (1)",
            ";; vacuum",
            "truncate t",
        ];
        for text in writes {
            assert_eq!(presume(text), Presumption::Writes, "{text}");
        }
        let unknown = [
            "select 1",
            "with x as (select 1) select * from x",
            "(select 1)",
            "values (1)",
            "explain insert into t values (1)",
            "",
            "--",
            "/* never closed",
            "selectinsert",
        ];
        for text in unknown {
            assert_eq!(presume(text), Presumption::Unknown, "{text}");
        }
    }

    #[test]
    fn session_statements_are_named() {
        for (text, keyword) in [
            ("PRAGMA foreign_keys = off", "pragma"),
            ("begin", "begin"),
            ("/**/Commit;", "commit"),
            ("end", "end"),
            ("attach 'x' as y", "attach"),
            ("savepoint s", "savepoint"),
            ("set work_mem = 1", "set"),
        ] {
            assert_eq!(presume(text), Presumption::Session(keyword), "{text}");
        }
    }

    #[test]
    fn only_what_changes_rows_shares_a_transaction() {
        for text in [
            "insert into t",
            " /* */ With x as (select 1)",
            "SELECT 1",
            "(values (1))",
        ] {
            assert!(may_share_a_transaction(text), "{text}");
        }
        for text in [
            "create table t (a)",
            "vacuum",
            "analyze",
            "pragma x",
            "begin",
            "explain insert into t",
            "",
        ] {
            assert!(!may_share_a_transaction(text), "{text}");
        }
    }

    #[test]
    fn a_text_of_comments_is_blank() {
        for text in ["", " \n;", "-- nothing", "/* nothing */ ; -- more"] {
            assert!(is_blank(text), "{text}");
        }
        assert!(!is_blank("/* something */ select 1"));
    }
}
