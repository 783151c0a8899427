//! What the first keyword tells.
//!
//! Most texts say at once that they write, and some ask for what a one-shot call may not do: to
//! change a session that somebody else uses next. Everything else is asked of the database itself,
//! because nobody can tell a read from a write by looking at the text.

use mainstay_core::backend::Presumption;

/// Statements that change the session or the transaction. PostgreSQL's are here too, so that a text
/// is refused by its name on both databases and not as a syntax error on one.
const SESSION: [&str; 25] = [
    "set",
    "reset",
    "discard",
    "listen",
    "unlisten",
    "prepare",
    "execute",
    "deallocate",
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "lock",
    "declare",
    "fetch",
    "move",
    "close",
    "load",
    "attach",
    "detach",
    "pragma",
];

/// `vacuum` cannot run in a transaction, and a checkpoint changes nothing of the session.
const WRITES: [&str; 21] = [
    "insert",
    "update",
    "delete",
    "merge",
    "truncate",
    "create",
    "alter",
    "drop",
    "comment",
    "grant",
    "revoke",
    "do",
    "call",
    "copy",
    "refresh",
    "reindex",
    "cluster",
    "analyze",
    "replace",
    "vacuum",
    "checkpoint",
];

/// Says what the text alone tells.
pub(crate) fn presume(text: &str) -> Presumption {
    let first = first_word(text);
    let is_first = |keyword: &&&str| keyword.eq_ignore_ascii_case(first);
    if let Some(&keyword) = SESSION.iter().find(is_first) {
        return Presumption::Session(keyword);
    }
    match WRITES.iter().find(is_first) {
        Some(_) => Presumption::Writes,
        None => Presumption::Unknown,
    }
}

/// Whether the text holds no statement at all.
pub(crate) fn is_blank(text: &str) -> bool {
    skip_to_statement(text).is_empty()
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
    fn a_text_of_comments_is_blank() {
        for text in ["", " \n;", "-- nothing", "/* nothing */ ; -- more"] {
            assert!(is_blank(text), "{text}");
        }
        assert!(!is_blank("/* something */ select 1"));
    }
}
