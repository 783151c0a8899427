//! Exact decimal numbers, carried as canonical text.
//!
//! Money must not pass through a float on its way to the database. No arithmetic happens here: the
//! number is checked and written in one canonical form, so that equal numbers are equal texts on
//! SQLite, and an application that calculates uses a decimal library and the conversion for it.

use std::fmt;
use std::str::FromStr;

/// An exact decimal number in canonical form: no exponent, no leading zeros, no `+`, no negative
/// zero; trailing zeros of the fraction are kept, because they say how precise a price is.
///
/// ```
/// use mainstay_core::Decimal;
/// let price: Decimal = "0012.50".parse()?;
/// assert_eq!(price.as_str(), "12.50");
/// assert!("12,50".parse::<Decimal>().is_err());
/// # Ok::<(), mainstay_core::value::DecimalError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal(String);

/// The most digits a [`Decimal`] takes: PostgreSQL's own limits are 131,072 before and 16,383 after
/// the point; a thousand are enough for any quantity and keep a hostile input small.
pub const DIGITS_MAX: usize = 1_000;

/// The text is not a decimal number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecimalError;

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a decimal number (digits, an optional sign and one point)")
    }
}

impl std::error::Error for DecimalError {}

impl Decimal {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number as an integer, if it has no fraction other than zeros and fits.
    #[must_use]
    pub fn to_i128(&self) -> Option<i128> {
        let (whole, fraction) = self.0.split_once('.').unwrap_or((&self.0, ""));
        if fraction.bytes().any(|digit| digit != b'0') {
            return None;
        }
        whole.parse().ok()
    }

    /// The nearest float.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::INFINITY)
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0
            || whole.len() + fraction.len() > DIGITS_MAX
            || !all_digits(whole)
            || !all_digits(fraction)
        {
            return Err(DecimalError);
        }
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let is_zero = whole == "0" && fraction.bytes().all(|digit| digit == b'0');
        let sign = if negative && !is_zero { "-" } else { "" };
        Ok(Self(if fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{fraction}")
        }))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_one_text() {
        for (given, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("+5", "5"),
            ("007", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-12.340", "-12.340"),
        ] {
            assert_eq!(
                given.parse::<Decimal>().unwrap().as_str(),
                canonical,
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1e3", "NaN", "1 ", "1.2.3", "٣", "--1"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError), "{text:?}");
        }
        assert!("9".repeat(DIGITS_MAX + 1).parse::<Decimal>().is_err());
    }

    #[test]
    fn only_whole_numbers_become_integers() {
        assert_eq!("42.00".parse::<Decimal>().unwrap().to_i128(), Some(42));
        assert_eq!("42.01".parse::<Decimal>().unwrap().to_i128(), None);
        assert_eq!("9".repeat(60).parse::<Decimal>().unwrap().to_i128(), None);
    }
}
