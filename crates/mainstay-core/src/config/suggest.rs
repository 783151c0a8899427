//! The nearest known name.
//!
//! "Unknown parameter" sends a reader to the documentation; "did you mean" sends them home.

/// Longer names are not compared: nothing known is near them, and the comparison is quadratic.
const LONGEST: usize = 64;

/// The candidate that needs the fewest changes to become `name`, and at most `farthest`. Case and
/// the kind of separator do not count as changes.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    farthest: usize,
) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let plain = fold(name);
    // Half of a short word changed is another word: `mode` is not `node`'s business.
    let farthest = farthest.min(plain.len() / 2);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&plain, &fold(candidate)),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= farthest)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// One spelling for comparison: lower case, words joined by `_`.
pub(super) fn fold(name: &str) -> String {
    name.chars()
        .map(|c| {
            if matches!(c, '-' | ' ' | '+') {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["connection_limit", "connect_timeout", "schema"];

    #[test]
    fn a_slip_finds_its_name() {
        for slip in [
            "conection_limit",
            "connectionLimit",
            "connection-limit",
            "CONNECTION_LIMIT",
        ] {
            assert_eq!(nearest(slip, KNOWN, 3), Some("connection_limit"), "{slip}");
        }
        assert_eq!(nearest("shcema", KNOWN, 3), Some("schema"));
    }

    #[test]
    fn another_word_finds_nothing() {
        for word in [
            "",
            "x",
            "workers",
            "connection",
            &"connection_limit".repeat(1000),
        ] {
            assert_eq!(nearest(word, KNOWN, 3), None, "{word}");
        }
    }
}
