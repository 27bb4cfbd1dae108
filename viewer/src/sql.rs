//! Where in a query one is: in code, in a quoted text, in a comment. What is put into a query is judged by it, and comments are taken out before anything is
//! expanded, as the ClickHouse data source does.

/// A place in a query, as ClickHouse reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    #[default]
    Code,
    /// Within this quote.
    Quoted(char),
    LineComment,
    BlockComment,
}

/// Reads a query character by character and knows the place after each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lexer {
    place: Place,
    /// The last character was a backslash that escapes the next.
    escaped: bool,
    /// The last character, where it may begin or end a comment together with the next.
    previous: Option<char>,
}

impl Lexer {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn step(&mut self, character: char) {
        let previous = self.previous.take();
        match (self.place, character) {
            (Place::Code, '\'' | '"' | '`') => self.place = Place::Quoted(character),
            (Place::Code, '-') if previous == Some('-') => self.place = Place::LineComment,
            (Place::Code, '!' | ' ') if previous == Some('#') => self.place = Place::LineComment,
            (Place::Code, '*') if previous == Some('/') => self.place = Place::BlockComment,
            (Place::Quoted(_), _) if self.escaped => self.escaped = false,
            (Place::Quoted(_), '\\') => self.escaped = true,
            (Place::Quoted(quote), _) if quote == character => self.place = Place::Code,
            (Place::LineComment, '\n') => self.place = Place::Code,
            (Place::BlockComment, '/') if previous == Some('*') => self.place = Place::Code,
            (Place::Code | Place::BlockComment, _) => self.previous = Some(character),
            (Place::Quoted(_) | Place::LineComment, _) => {}
        }
    }

    /// Whether a text that is put in here leaves the place as it was: a quoted text is not left in between, and code is code again behind it. If so, it is read.
    pub(crate) fn bears(&mut self, text: &str) -> bool {
        let mut after = *self;
        for character in text.chars() {
            after.step(character);
            if self.place != Place::Code && after.place != self.place {
                return false;
            }
        }
        let bears = after.place == self.place && !after.escaped;
        if bears {
            *self = after;
        }
        bears
    }
}

/// The query without its comments.
pub(crate) fn without_comments(sql: &str) -> String {
    let mut lexer = Lexer::default();
    let mut kept = String::with_capacity(sql.len());
    for character in sql.chars() {
        let before = lexer.place();
        lexer.step(character);
        let is_comment = |place| matches!(place, Place::LineComment | Place::BlockComment);
        match (is_comment(before), is_comment(lexer.place())) {
            (false, false) => kept.push(character),
            (false, true) => {
                // The comment's first character has been kept as code.
                kept.pop();
                kept.push(' ');
            }
            (true, false) if character == '\n' => kept.push(character),
            (true, _) => {}
        }
    }
    kept
}

/// Splits what begins with `(` into the arguments up to the bracket that closes it, and the rest behind that. Commas and brackets in quotes or in inner brackets
/// count for nothing. None: it is not closed.
pub(crate) fn arguments(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut lexer = Lexer::default();
    let (mut depth, mut start) = (0_usize, 1);
    let mut found = Vec::new();
    for (at, character) in text.char_indices() {
        lexer.step(character);
        if lexer.place() != Place::Code {
            continue;
        }
        match character {
            '(' => depth += 1,
            ',' if depth == 1 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            ')' if depth == 1 => {
                let last = text[start..at].trim();
                if !last.is_empty() || !found.is_empty() {
                    found.push(last);
                }
                return Some((found, &text[at + 1..]));
            }
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The length of the word that a text begins with: letters, digits, underscores.
pub(crate) fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// A text as ClickHouse reads it within these quotes.
pub(crate) fn escaped(text: &str, quote: char) -> String {
    let mut safe = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        if character == quote || character == '\\' {
            safe.push('\\');
        }
        safe.push(character);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_what_only_looks_like_one_stays() {
        let cases = [
            ("SELECT 1 -- one\n, 2", "SELECT 1  \n, 2"),
            ("SELECT /* a ' b */ 1", "SELECT   1"),
            ("SELECT '--', \"/*\", `#!`", "SELECT '--', \"/*\", `#!`"),
            (r"SELECT 'it\'s -- in' - 1", r"SELECT 'it\'s -- in' - 1"),
            ("SELECT 'it''s -- in'", "SELECT 'it''s -- in'"),
            ("SELECT a - -1 /*/ x */", "SELECT a - -1  "),
        ];
        for (sql, kept) in cases {
            assert_eq!(without_comments(sql), kept);
        }
    }

    #[test]
    fn arguments_are_split_where_commas_separate_them() {
        assert_eq!(arguments("(a) b"), Some((vec!["a"], " b")));
        assert_eq!(
            arguments("( f(a, 1), ',)' )x"),
            Some((vec!["f(a, 1)", "',)'"], "x"))
        );
        assert_eq!(arguments("()"), Some((vec![], "")));
        assert_eq!(arguments("(a, (b"), None);
    }

    #[test]
    fn a_text_that_would_leave_its_quotes_or_open_a_comment_is_not_borne() {
        let at = |sql: &str| {
            let mut lexer = Lexer::default();
            sql.chars().for_each(|character| lexer.step(character));
            lexer
        };
        assert!(at("x = '").bears("abc"));
        assert!(at("x = '").bears(r"it\'s"));
        assert!(!at("x = '").bears("it's"));
        assert!(!at("x = '").bears("x\\"));
        assert!(at("x = ").bears("'abc'"));
        assert!(!at("x = -").bears("-1"));
        assert!(!at("x = ").bears("'abc"));
    }
}
