//! `numeric`, from base 10,000 to exact decimal digits.

use mainstay_core::Decimal;

/// What stands in the sign field.
const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;

/// Reads the binary form: the number of digits of base 10,000, the weight of the first of them, the
/// sign, how many decimal places are shown, and the digits.
pub(super) fn decimal(bytes: &[u8]) -> Result<Decimal, &'static str> {
    const BROKEN: &str = "the server sent a malformed numeric";
    let mut words = bytes
        .chunks(2)
        .map(|pair| <[u8; 2]>::try_from(pair).map(u16::from_be_bytes));
    let mut word = || words.next().and_then(Result::ok).ok_or(BROKEN);
    let count = usize::from(word()?);
    let weight = i32::from(word()?.cast_signed());
    let sign = word()?;
    let scale = usize::from(word()?);
    match sign {
        POSITIVE | NEGATIVE => {}
        NAN => return Err("it is NaN, which is no decimal number"),
        _ => return Err("it is infinite, which is no decimal number"),
    }
    let digits = (0..count).map(|_| word()).collect::<Result<Vec<_>, _>>()?;
    if digits.iter().any(|&digit| digit > 9_999) {
        return Err(BROKEN);
    }
    // A position of base 10,000: 0 holds the ones, -1 the first four decimal places.
    let at = |position: i32| {
        usize::try_from(weight - position)
            .ok()
            .and_then(|index| digits.get(index))
            .copied()
            .unwrap_or(0)
    };
    let mut text = String::new();
    if sign == NEGATIVE {
        text.push('-');
    }
    for position in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", at(position)));
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut position = -1;
        while text.len() < end {
            text.push_str(&format!("{:04}", at(position)));
            position -= 1;
        }
        text.truncate(end);
    }
    text.parse()
        .map_err(|_| "it has more digits than a decimal number takes here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Result<String, &'static str> {
        let head = [
            u16::try_from(digits.len()).unwrap(),
            weight.cast_unsigned(),
            sign,
            scale,
        ];
        let bytes: Vec<u8> = head
            .iter()
            .chain(digits)
            .flat_map(|word| word.to_be_bytes())
            .collect();
        decimal(&bytes).map(|decimal| decimal.as_str().to_owned())
    }

    #[test]
    fn every_place_is_where_it_belongs() {
        assert_eq!(read(0, POSITIVE, 0, &[]).unwrap(), "0");
        assert_eq!(read(0, POSITIVE, 2, &[]).unwrap(), "0.00");
        assert_eq!(read(0, NEGATIVE, 2, &[12, 3400]).unwrap(), "-12.34");
        assert_eq!(read(1, POSITIVE, 0, &[1]).unwrap(), "10000");
        assert_eq!(read(-1, POSITIVE, 4, &[1]).unwrap(), "0.0001");
        assert_eq!(read(-2, POSITIVE, 6, &[100]).unwrap(), "0.000001");
        assert_eq!(
            read(2, POSITIVE, 3, &[1, 0, 5, 1230]).unwrap(),
            "100000005.123"
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert!(read(0, NAN, 0, &[]).is_err());
        assert!(read(0, 0xD000, 0, &[]).is_err());
        assert!(read(0, POSITIVE, 0, &[10_000]).is_err());
        assert!(decimal(&[0, 2, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(i16::MAX, POSITIVE, 0, &[1]).is_err());
    }
}
