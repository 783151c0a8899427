//! What must hold of input before it reaches the database.
//!
//! All findings are told at once: a form that is sent back five times for five fields is a form
//! that nobody finishes.

use mainstay_axum::{FieldError, Problem};
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The findings about one request.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    /// Notes a finding unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, field: &str, message: impl Display) {
        if !holds {
            self.0.push(FieldError::new(field, message.to_string()));
        }
    }

    /// A text that says something, of at most so many characters.
    pub(crate) fn text(&mut self, field: &str, text: &str, max: usize) {
        self.check(!text.trim().is_empty(), field, "must not be empty");
        self.prose(field, text, max);
    }

    /// A text that may be empty. NUL is refused because PostgreSQL cannot store it.
    pub(crate) fn prose(&mut self, field: &str, text: &str, max: usize) {
        let length = text.chars().count();
        let message = format!("must have at most {max} characters and has {length}");
        self.check(length <= max, field, message);
        self.check(!text.contains('\0'), field, "must not contain NUL");
    }

    /// A number within bounds.
    pub(crate) fn range(&mut self, field: &str, number: i64, allowed: RangeInclusive<i64>) {
        let message = format!("must lie between {} and {}", allowed.start(), allowed.end());
        self.check(allowed.contains(&number), field, message);
    }

    /// 422 with all findings, if there are any.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(self.0))
        }
    }
}

/// Tells a field that was left out (`None`) from one that was given, `null` included:
/// `#[serde(default, deserialize_with = "given")]`.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}
