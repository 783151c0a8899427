//! Durations as people write them: `30s`, `500ms`, `5m`, `1h`, `0.5s`, or a bare number.
//!
//! A bare number is the oldest trap of pool configuration: one program reads `5000` as
//! milliseconds, the next as an hour and a half. So every place that takes one says its unit, and
//! a text may always carry its own.

use std::time::Duration;

/// No setting is longer than a year: enough for any of them, and far from where clocks overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a number without a unit means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The word for error messages and the documentation.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }

    const fn nanoseconds(self) -> u128 {
        match self {
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
        }
    }
}

/// Why a text is not a duration.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not a number with an optional unit.
    Form,
    /// It is below zero.
    Negative,
    /// It is longer than [`LONGEST`].
    TooLong,
}

/// Reads a duration; a number without a unit is counted in `bare`.
pub(super) fn parse(text: &str, bare: Unit) -> Result<Duration, Fault> {
    if let Some(rest) = text.strip_prefix('-') {
        return Err(parse(rest, bare).map_or_else(|fault| fault, |_| Fault::Negative));
    }
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "" => bare.nanoseconds(),
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        _ => return Err(Fault::Form),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(Fault::Form);
    }
    // Only digits are left, so the one way to fail is to be too large.
    let whole: u64 = whole.parse().map_err(|_| Fault::TooLong)?;
    let parts: u128 = fraction.parse().map_err(|_| Fault::Form)?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| Fault::Form)?);
    // A part of a nanosecond is refused: rounded to zero it could come to mean "no limit".
    if !(parts * unit).is_multiple_of(scale) {
        return Err(Fault::Form);
    }
    let nanoseconds = u128::from(whole) * unit + parts * unit / scale;
    if nanoseconds > LONGEST.as_nanos() {
        return Err(Fault::TooLong);
    }
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| Fault::TooLong)?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Whether the text carries no unit of its own.
pub(super) fn is_bare(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, milliseconds) in [
            ("0", 0),
            ("7", 7_000),
            ("0.5", 500),
            ("500ms", 500),
            ("30s", 30_000),
            ("0.25s", 250),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("365d", 31_536_000_000),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse(text, Unit::Seconds), Ok(expected), "{text}");
        }
        assert_eq!(parse("7", Unit::Milliseconds), Ok(Duration::from_millis(7)));
        assert_eq!(
            parse("0.5ms", Unit::Seconds),
            Ok(Duration::from_micros(500))
        );
    }

    #[test]
    fn junk_negatives_and_overflow_are_told_apart() {
        for text in [
            "", "s", ".5", "5.", "1.2.3", "5 s", "5S", "5sec", "1e3", "+5", "ten", "５s", "-",
        ] {
            assert_eq!(parse(text, Unit::Seconds), Err(Fault::Form), "{text}");
        }
        for text in ["-1", "-0.5s", "-5m"] {
            assert_eq!(parse(text, Unit::Seconds), Err(Fault::Negative), "{text}");
        }
        for text in [
            "366d",
            "31536001",
            "99999999999999999999999999",
            "18446744073709551615d",
        ] {
            assert_eq!(parse(text, Unit::Seconds), Err(Fault::TooLong), "{text}");
        }
    }

    #[test]
    fn what_is_not_zero_never_becomes_zero() {
        assert_eq!(parse("0.0000001ms", Unit::Seconds), Err(Fault::Form));
        assert_eq!(
            parse("0.000001ms", Unit::Seconds),
            Ok(Duration::from_nanos(1))
        );
    }
}
