//! Pages for people.

use crate::failure::{Failure, Step};
use std::time::Duration;

/// How wide the column of labels is: the longest one and two spaces.
const LABEL_WIDTH: usize = 13;

/// What a piece of text means, in colours that every terminal has.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    Plain,
    /// Of less interest.
    Dim,
    /// In order.
    Good,
    /// To be done.
    Due,
    /// Wrong.
    Bad,
}

impl Paint {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Due => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }
}

/// Text in the making.
///
/// Whatever is put on it may come from a database, so line ends become spaces and control characters
/// disappear: a table's name must not repaint somebody's terminal.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    colour: bool,
}

impl Page {
    pub(super) fn new(colour: bool) -> Self {
        Self {
            text: String::new(),
            colour,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn put(&mut self, paint: Paint, text: &str) {
        match paint.code().filter(|_| self.colour) {
            Some(code) => {
                self.text.push_str("\x1b[");
                self.text.push_str(code);
                self.text.push('m');
                self.text.push_str(&printable(text));
                self.text.push_str("\x1b[0m");
            }
            None => self.text.push_str(&printable(text)),
        }
    }

    /// One line.
    pub(crate) fn paragraph(&mut self, paint: Paint, text: &str) {
        self.put(paint, text);
        self.text.push('\n');
    }

    /// One line that says what something is.
    pub(crate) fn field(&mut self, label: &str, paint: Paint, value: &str) {
        self.put(Paint::Dim, &format!("{label:<LABEL_WIDTH$}"));
        self.paragraph(paint, value);
    }

    /// One line of a list, with what is to be said about it.
    pub(crate) fn item(&mut self, paint: Paint, text: &str, remark: &str) {
        self.text.push_str("  ");
        self.put(paint, text);
        if !remark.is_empty() {
            self.text.push_str("  ");
            self.put(Paint::Dim, remark);
        }
        self.text.push('\n');
    }

    /// A migration that was applied.
    pub(crate) fn step(&mut self, step: &Step) {
        self.text.push_str("  ");
        self.put(Paint::Good, "applied");
        self.item(Paint::Plain, &step.migration, &took(step.took()));
    }

    /// An empty line.
    pub(crate) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// What went wrong, in one line, and what to try, in another.
    pub(super) fn failure(&mut self, failure: &Failure, verbose: bool) {
        self.put(Paint::Bad, "error:");
        self.text.push(' ');
        self.paragraph(Paint::Plain, &failure.message);
        for cause in failure.causes.iter().filter(|_| verbose) {
            self.put(Paint::Dim, "cause:");
            self.text.push(' ');
            self.paragraph(Paint::Plain, cause);
        }
        if let Some(remedy) = &failure.remedy {
            self.put(Paint::Good, "hint:");
            self.text.push(' ');
            self.paragraph(Paint::Plain, remedy);
        }
    }
}

/// One line without control characters.
fn printable(text: &str) -> String {
    let text = text.replace("\r\n", " ").replace(['\n', '\t'], " ");
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A duration as people say it: three digits are enough.
pub(crate) fn took(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    match duration.as_secs() {
        0 if ms < 10.0 => format!("{ms:.1} ms"),
        0 => format!("{ms:.0} ms"),
        seconds @ 1..60 => format!("{:.1} s", duration.as_secs_f64().max(seconds as f64)),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A size as people say it.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `1 table`, `2 tables`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_with_the_precision_that_matters() {
        let cases = [
            (Duration::from_micros(420), "0.4 ms"),
            (Duration::from_millis(42), "42 ms"),
            (Duration::from_millis(4200), "4.2 s"),
            (Duration::from_secs(150), "2 min 30 s"),
        ];
        for (duration, expected) in cases {
            assert_eq!(took(duration), expected);
        }
    }

    #[test]
    fn what_comes_from_a_database_cannot_repaint_the_terminal() {
        let mut page = Page::new(false);
        page.item(Paint::Bad, "evil\x1b[2J\r\nname\u{9b}", "");
        assert_eq!(page.text(), "  evil[2J name\n");
    }

    #[test]
    fn without_colour_there_is_no_escape_sequence() {
        for (colour, escapes) in [(false, 0), (true, 2)] {
            let mut page = Page::new(colour);
            page.paragraph(Paint::Good, "text");
            assert_eq!(page.text().matches('\x1b').count(), escapes);
        }
    }
}
