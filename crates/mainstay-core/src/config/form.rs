//! The forms a value can have, and where a value goes once it is read.
//!
//! Form and setter stand in one variant, so that a parameter cannot be read as one type and stored
//! as another. No message repeats the value: whoever pasted a password into the wrong place must
//! not find it in a log.

use super::draft::Draft;
use super::duration::{self, Fault, Unit};
use super::refusal;
use super::suggest::{fold, nearest};
use crate::Result;
use std::time::Duration;

/// A word and what choosing it does.
pub(super) type Choice = (&'static str, fn(&mut Draft));

/// What a parameter's value looks like, and what it sets.
#[derive(Debug)]
pub(super) enum Form {
    /// A whole number.
    Count {
        least: u32,
        most: u32,
        example: &'static str,
        set: fn(&mut Draft, u32),
    },
    /// A duration.
    Time(Time),
    /// `true` or `false`.
    Flag { set: fn(&mut Draft, bool) },
    /// One of a few words.
    Word { choices: &'static [Choice] },
    /// Any text that is not empty.
    Text {
        what: &'static str,
        example: &'static str,
        set: fn(&mut Draft, String),
    },
    /// A parameter that other programs know and that is refused here, with the way out.
    Refused {
        because: &'static str,
        instead: &'static str,
    },
}

/// What a duration may be.
#[derive(Debug)]
pub(super) struct Time {
    /// What zero means, or `None` where it is refused.
    pub(super) zero: Option<&'static str>,
    /// What a bare number means in the environment; in the URL it means seconds.
    pub(super) variable: Unit,
    /// A bare number in the URL above this is refused: it was meant as milliseconds.
    pub(super) most_bare: Option<Duration>,
    pub(super) example: &'static str,
    pub(super) set: fn(&mut Draft, Duration),
}

/// A value that was read, for comparison with what another source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Count(u32),
    Time(Duration),
    Flag(bool),
    Word(&'static str),
    Text(String),
}

/// Where a value comes from. It decides how the value is called and what a bare number means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A parameter of the URL.
    Url,
    /// An environment variable.
    Variable,
}

impl Form {
    /// Reads the text and sets what it says. `name` is what messages call the setting.
    pub(super) fn apply(
        &self,
        draft: &mut Draft,
        name: &str,
        text: &str,
        source: Source,
    ) -> Result<Given> {
        if text.is_empty() {
            return Err(refusal(format!("{name} is empty"))
                .remedy(self.remedy(name))
                .into());
        }
        match self {
            Self::Count {
                least, most, set, ..
            } => {
                let number = count(text, *least, *most).ok_or_else(|| {
                    refusal(format!(
                        "{name} must be a whole number from {least} to {most}"
                    ))
                    .remedy(self.remedy(name))
                })?;
                set(draft, number);
                Ok(Given::Count(number))
            }
            Self::Time(form) => {
                let time = form
                    .read(name, text, source)
                    .map_err(|message| refusal(message).remedy(self.remedy(name)))?;
                (form.set)(draft, time);
                Ok(Given::Time(time))
            }
            Self::Flag { set } => {
                let flag = text.parse().map_err(|_| {
                    refusal(format!("{name} must be true or false")).remedy(self.remedy(name))
                })?;
                set(draft, flag);
                Ok(Given::Flag(flag))
            }
            Self::Word { choices } => {
                let (word, set) = choice(name, text, choices)?;
                set(draft);
                Ok(Given::Word(word))
            }
            Self::Text { set, .. } => {
                set(draft, text.to_owned());
                Ok(Given::Text(text.to_owned()))
            }
            Self::Refused { because, instead } => Err(refusal(format!("{name}: {because}"))
                .remedy(*instead)
                .into()),
        }
    }

    /// Whether it is true or false.
    pub(super) fn is_flag(&self) -> bool {
        matches!(self, Self::Flag { .. })
    }

    /// An example of a value that is right.
    fn remedy(&self, name: &str) -> String {
        let example = match self {
            Self::Count { example, .. } | Self::Text { example, .. } => example,
            Self::Time(form) => form.example,
            Self::Flag { .. } => "true",
            Self::Word { choices } => choices.first().map_or("", |(word, _)| word),
            Self::Refused { instead, .. } => return (*instead).to_owned(),
        };
        format!("for example {name}={example}")
    }

    /// The form in words, for the documentation.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Count { least, .. } => format!("number, at least {least}"),
            Self::Time(form) => form.describe(),
            Self::Flag { .. } => "`true`, `false`".to_owned(),
            Self::Word { choices } => {
                let words: Vec<_> = choices
                    .iter()
                    .map(|(word, _)| format!("`{word}`"))
                    .collect();
                words.join(", ")
            }
            Self::Text { what, .. } => (*what).to_owned(),
            Self::Refused { .. } => "refused".to_owned(),
        }
    }
}

impl Time {
    /// Reads the text, or says what is wrong with it.
    fn read(&self, name: &str, text: &str, source: Source) -> Result<Duration, String> {
        let bare = match source {
            Source::Url => Unit::Seconds,
            Source::Variable => self.variable,
        };
        let time = duration::parse(text, bare).map_err(|fault| match fault {
            Fault::Form => format!(
                "{name} must be a duration like 30s, 500ms, 5m or 1h; a bare number means {}",
                bare.name()
            ),
            Fault::Negative => format!("{name} cannot be negative"),
            Fault::TooLong => format!("{name} is at most 365d"),
        })?;
        if time.is_zero() && self.zero.is_none() {
            return Err(format!("{name} must be more than 0"));
        }
        let is_bare = source == Source::Url && duration::is_bare(text);
        if let Some(most) = self.most_bare.filter(|most| is_bare && time > *most) {
            return Err(format!(
                "{name} is more than {} as a bare number, which means seconds in the URL; write \
                 the unit",
                most.as_secs()
            ));
        }
        Ok(time)
    }

    fn describe(&self) -> String {
        let unit = match self.variable {
            Unit::Seconds => "seconds",
            Unit::Milliseconds => "seconds, in the variable milliseconds",
        };
        self.zero
            .map_or_else(|| unit.to_owned(), |zero| format!("{unit}; 0 = {zero}"))
    }
}

fn count(text: &str, least: u32, most: u32) -> Option<u32> {
    // `parse` alone would take a plus sign.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_plain && (least..=most).contains(number))
}

fn choice(name: &str, text: &str, choices: &'static [Choice]) -> Result<Choice> {
    let plain = fold(text);
    if let Some(choice) = choices.iter().find(|(word, _)| fold(word) == plain) {
        return Ok(*choice);
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    let report = refusal(format!("{name} must be one of {}", words.join(", ")));
    Err(match nearest(text, words, 3) {
        Some(word) => report.remedy(format!("did you mean {name}={word}?")),
        None => report,
    }
    .into())
}
