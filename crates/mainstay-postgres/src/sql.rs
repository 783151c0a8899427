//! Reading SQL text just far enough.
//!
//! Four questions are asked of a text before it is sent: which keyword begins it, which parameters
//! it names, which identifiers occur in it, and where one statement ends and the next begins. Each
//! of them is answered wrongly by a search for a substring, because of comments, strings, dollar
//! quotes and quoted names; so the text is cut into tokens the way PostgreSQL's own scanner does,
//! and no further.

use std::borrow::Cow;

/// A piece of SQL text that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name, as the server folds it: lower case unless quoted.
    Word {
        /// The folded name.
        name: Cow<'a, str>,
        /// Whether it stood in double quotes, so that it cannot be a keyword.
        quoted: bool,
    },
    /// `$n`.
    Parameter(u32),
    /// A run of operator characters.
    Operator(&'a str),
    /// `(` or `[`.
    Open,
    /// `)` or `]`.
    Close,
    /// `;`, at this byte of the text.
    Semicolon(usize),
    /// A string or a number.
    Literal,
    /// Something whose meaning is not decoded here: a name with Unicode escapes.
    Opaque,
}

/// Names longer than this are cut by the server (`NAMEDATALEN` - 1).
const NAME_BYTES_MAX: usize = 63;

/// Cuts a text into tokens.
pub(crate) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

/// The tokens of a text.
pub(crate) fn tokens(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let (&first, second) = (rest.first()?, rest.get(1).copied());
            match first {
                b'-' if second == Some(b'-') => self.skip_line(),
                b'/' if second == Some(b'*') => self.skip_block_comment(),
                b'\'' => return Some(self.string(false)),
                b'"' => return Some(self.quoted_name()),
                b'$' => {
                    if let Some(token) = self.dollar() {
                        return Some(token);
                    }
                }
                b'(' | b'[' => return Some(self.single(Token::Open)),
                b')' | b']' => return Some(self.single(Token::Close)),
                b';' => {
                    let token = Token::Semicolon(self.at);
                    return Some(self.single(token));
                }
                _ if is_name_start(first) => return Some(self.word()),
                b'0'..=b'9' => {
                    self.skip_while(|byte| is_name_part(byte) || byte == b'.');
                    return Some(Token::Literal);
                }
                _ if is_operator(first) => return Some(self.operator()),
                _ => self.at += 1,
            }
        }
    }
}

impl<'a> Tokens<'a> {
    fn single(&mut self, token: Token<'a>) -> Token<'a> {
        self.at += 1;
        token
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|&byte| keep(byte)) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        self.skip_while(|byte| byte != b'\n' && byte != b'\r');
    }

    /// Block comments nest, unlike in C.
    fn skip_block_comment(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 0_usize;
        while self.at < bytes.len() {
            match &bytes[self.at..] {
                [b'/', b'*', ..] => {
                    depth += 1;
                    self.at += 2;
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// A string from its opening quote on; a doubled quote is part of it.
    fn string(&mut self, backslashes: bool) -> Token<'a> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\\' if backslashes => self.at += 2,
                b'\'' if bytes.get(self.at + 1) == Some(&b'\'') => self.at += 2,
                b'\'' => {
                    self.at += 1;
                    return Token::Literal;
                }
                _ => self.at += 1,
            }
        }
        self.at = bytes.len();
        Token::Literal
    }

    fn quoted_name(&mut self) -> Token<'a> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut end = start;
        let mut doubled = false;
        while let Some(&byte) = bytes.get(end) {
            if byte == b'"' {
                if bytes.get(end + 1) != Some(&b'"') {
                    break;
                }
                doubled = true;
                end += 1;
            }
            end += 1;
        }
        let end = end.min(bytes.len());
        self.at = (end + 1).min(bytes.len());
        let name = &self.text[start.min(end)..end];
        let name = if doubled {
            Cow::Owned(name.replace("\"\"", "\""))
        } else {
            name.into()
        };
        Token::Word {
            name: cut(name),
            quoted: true,
        }
    }

    /// `$1`, or a dollar-quoted string; a lone dollar is nothing.
    fn dollar(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        if bytes.get(start).is_some_and(u8::is_ascii_digit) {
            self.at = start;
            self.skip_while(|byte| byte.is_ascii_digit());
            // A number beyond u32 is refused by the server; here it only must not be lost.
            return Some(Token::Parameter(
                self.text[start..self.at].parse().unwrap_or(u32::MAX),
            ));
        }
        let tag_end = bytes[start..]
            .iter()
            .position(|&byte| byte == b'$' || !is_name_part(byte))
            .map_or(bytes.len(), |length| start + length);
        if bytes.get(tag_end) != Some(&b'$') {
            self.at += 1;
            return None;
        }
        let tag = &self.text[self.at..=tag_end];
        let body = tag_end + 1;
        let end = self.text[body..]
            .find(tag)
            .map(|found| body + found + tag.len());
        self.at = end.unwrap_or(bytes.len());
        Some(Token::Literal)
    }

    /// A name or keyword; or the prefix of a string, and the string with it.
    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        self.skip_while(is_name_part);
        let word = &self.text[start..self.at];
        let rest = &self.text.as_bytes()[self.at..];
        match rest {
            [b'\'', ..] if matches!(word, "e" | "E") => self.string(true),
            [b'\'', ..] if matches!(word, "b" | "B" | "x" | "X" | "n" | "N") => self.string(false),
            [b'&', b'\'', ..] if matches!(word, "u" | "U") => {
                self.at += 1;
                self.string(false)
            }
            [b'&', b'"', ..] if matches!(word, "u" | "U") => {
                self.at += 1;
                self.quoted_name();
                Token::Opaque
            }
            _ => {
                let folded = if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    Cow::Owned(word.to_ascii_lowercase())
                } else {
                    word.into()
                };
                Token::Word {
                    name: cut(folded),
                    quoted: false,
                }
            }
        }
    }

    /// A run of operator characters ends where a comment begins.
    fn operator(&mut self) -> Token<'a> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while let Some(&byte) = bytes.get(self.at) {
            let pair = (byte, bytes.get(self.at + 1).copied());
            let is_comment = matches!(pair, (b'-', Some(b'-')) | (b'/', Some(b'*')));
            if !is_operator(byte) || (is_comment && self.at > start) {
                break;
            }
            self.at += 1;
        }
        Token::Operator(&self.text[start..self.at])
    }
}

const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_name_part(byte: u8) -> bool {
    is_name_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

/// Cuts a name to the length that the server keeps.
fn cut(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let mut end = NAME_BYTES_MAX;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

/// The first keyword, behind comments, parentheses and semicolons.
pub(crate) fn first_keyword(text: &str) -> Option<Cow<'_, str>> {
    tokens(text).find_map(|token| match token {
        Token::Open | Token::Close | Token::Semicolon(_) => None,
        Token::Word {
            name,
            quoted: false,
        } => Some(Some(name)),
        _ => Some(None),
    })?
}

/// What a text says about its parameters: whether the numbers are exactly 1 … `given`.
///
/// Answers the highest number and whether one below it is missing.
pub(crate) fn parameters(text: &str) -> (u32, bool) {
    let mut numbers: Vec<u32> = tokens(text)
        .filter_map(|token| match token {
            Token::Parameter(number) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let highest = numbers.last().copied().unwrap_or(0);
    (highest, u32::try_from(numbers.len()) != Ok(highest))
}

/// Cuts a script into its statements, without the semicolons between them.
///
/// The simple protocol runs several statements of one text as one transaction; a script whose
/// statements commit one by one has to be cut first. A semicolon inside parentheses or inside the
/// `BEGIN ATOMIC … END` body of a function does not end the statement.
pub(crate) fn statements(script: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut body = FunctionBody::default();
    let mut depth = 0_usize;
    let mut has_content = false;
    for token in tokens(script) {
        match &token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Semicolon(at) if depth == 0 && body.depth == 0 => {
                if has_content {
                    found.push(script[start..*at].trim());
                }
                start = at + 1;
                has_content = false;
                body = FunctionBody::default();
                continue;
            }
            Token::Word {
                name,
                quoted: false,
            } if depth == 0 => body.word(name),
            _ => {}
        }
        has_content = true;
    }
    if has_content {
        found.push(script[start..].trim());
    }
    found
}

/// Follows `CREATE [OR REPLACE] FUNCTION … BEGIN ATOMIC … END`, as psql does.
#[derive(Default)]
struct FunctionBody {
    words: usize,
    creates: bool,
    is_routine: bool,
    depth: usize,
}

impl FunctionBody {
    fn word(&mut self, word: &str) {
        match (self.words, word) {
            (0, "create") => self.creates = true,
            (1..=3, "function" | "procedure") => self.is_routine = self.creates,
            (_, "begin") if self.is_routine => self.depth += 1,
            (_, "case") if self.depth > 0 => self.depth += 1,
            (_, "end") if self.depth > 0 => self.depth -= 1,
            _ => {}
        }
        self.words += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        tokens(text)
            .filter_map(|token| match token {
                Token::Word { name, .. } => Some(name.into_owned()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn strings_and_comments_hold_no_names() {
        for text in [
            "/* a /* b */ c */ f",
            "-- a\nf",
            "'a''b' f",
            "E'a\\'b' f",
            "$$ a $$ f",
            "$x$ a $$ b $x$ f",
            "u&'a' f",
            "X'ab' f",
            "'a",
        ] {
            let expected: &[&str] = if text == "'a" { &[] } else { &["f"] };
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_folded_as_the_server_folds_them() {
        assert_eq!(
            names(r#"Foo "Bar" "a""b" é$1"#),
            ["foo", "Bar", "a\"b", "é$1"]
        );
        assert_eq!(names(&"x".repeat(70))[0].len(), NAME_BYTES_MAX);
        assert!(names(&"é".repeat(40))[0].len() <= NAME_BYTES_MAX);
        assert_eq!(tokens(r#"U&"d\0061t""#).next(), Some(Token::Opaque));
    }

    #[test]
    fn operators_end_where_comments_begin() {
        let found: Vec<_> = tokens("a ->> b+--c\n<@/* d */")
            .filter(|token| matches!(token, Token::Operator(_)))
            .collect();
        assert_eq!(found, ["->>", "+", "<@"].map(Token::Operator));
    }

    #[test]
    fn parameters_are_counted_outside_of_strings() {
        assert_eq!(parameters("select $1, $2, $1"), (2, false));
        assert_eq!(parameters("select '$3', $1 -- $9"), (1, false));
        assert_eq!(parameters("select $2"), (2, true));
        assert_eq!(parameters("select 1"), (0, false));
        assert_eq!(parameters("select $99999999999"), (u32::MAX, true));
    }

    #[test]
    fn the_first_keyword_is_found_behind_decoration() {
        assert_eq!(
            first_keyword(" ; /* x */ (( SELECT 1").as_deref(),
            Some("select")
        );
        assert_eq!(first_keyword("\"select\" 1"), None);
        assert_eq!(first_keyword("  "), None);
    }

    #[test]
    fn a_script_is_cut_between_its_statements_only() {
        assert_eq!(statements("a; b;\n c"), ["a", "b", "c"]);
        assert_eq!(
            statements("select ';'; select $$;$$ -- ;\n"),
            ["select ';'", "select $$;$$ -- ;"]
        );
        assert_eq!(
            statements("create rule r as on insert to t do (a; b); c").len(),
            2
        );
        let atomic = "create or replace function f() returns int begin atomic select 1; \
                      select case when true then 2 end; end; select 3";
        assert_eq!(statements(atomic).len(), 2);
        assert_eq!(statements(" ;; -- nothing\n"), [""; 0].as_slice());
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in [
            "$", "$é$", "\"", "\"\"\"", "'\\", "e'\\", "/*", "u&\"", "u&'", "$a", "é", "*/", "-",
        ] {
            assert!(tokens(text).count() <= text.len(), "{text}");
            statements(text);
        }
    }
}
