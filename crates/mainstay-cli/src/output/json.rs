//! Documents for machines: one object on one line, whatever happened.

use super::About;
use crate::failure::{Failure, Step};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a, R> {
    #[serde(flatten)]
    about: Option<&'a About>,
    #[serde(flatten)]
    report: &'a R,
}

#[derive(Serialize)]
struct FailureReport<'a> {
    error: &'a Failure,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    applied: &'a [Step],
}

/// A result.
pub(super) fn document(about: Option<&About>, report: &impl Serialize) -> String {
    match serde_json::to_string(&Document { about, report }) {
        Ok(mut text) => {
            text.push('\n');
            text
        }
        // Only a map whose keys are no text could do this; then saying so is better than nothing.
        Err(cause) => format!(
            "{}\n",
            serde_json::json!({ "error": { "kind": "output", "message": cause.to_string() } })
        ),
    }
}

/// A failure.
pub(super) fn failure(about: Option<&About>, failure: &Failure) -> String {
    document(
        about,
        &FailureReport {
            error: failure,
            applied: &failure.applied,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_four_fields_that_are_promised() {
        let text = failure(None, &Failure::usage("what\nhappened", "what to try"));
        assert_eq!(text.lines().count(), 1);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({ "error": {
            "kind": "usage", "code": null, "message": "what\nhappened", "remedy": "what to try",
        } });
        assert_eq!(document, expected);
    }
}
