//! Rust source as words and signs, each with its line. Comments and the contents of literals are left out.

/// A name, `::`, or one sign. A literal of text is `"`, a number a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of `source`, in order.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut reader = Reader { chars: source.chars().collect(), at: 0, line: 1 };
    std::iter::from_fn(|| reader.next()).collect()
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Reader {
    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let line = self.line;
        let first = self.peek(0)?;
        let text = if first == '_' || first.is_alphanumeric() {
            self.word()
        } else if self.starts_with("::") {
            self.advance(2);
            "::".to_owned()
        } else if first == '"' {
            self.text()
        } else if first == '\'' {
            self.quote()
        } else {
            self.advance(1);
            first.to_string()
        };
        Some(Token { text, line })
    }

    fn skip_blank(&mut self) {
        while let Some(next) = self.peek(0) {
            if self.starts_with("//") {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.advance(1);
                }
            } else if self.starts_with("/*") {
                self.block_comment();
            } else if next.is_whitespace() {
                self.advance(1);
            } else {
                return;
            }
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.peek(0).is_some() {
            if self.starts_with("/*") {
                depth += 1;
                self.advance(2);
            } else if self.starts_with("*/") {
                depth -= 1;
                self.advance(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.advance(1);
            }
        }
    }

    /// A name or a number; with `"` or `'` after it, the literal that it begins, such as `br#"…"#` and `b'x'`.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self.peek(0).filter(|c| *c == '_' || c.is_alphanumeric()) {
            word.push(next);
            self.advance(1);
        }
        let hashes = (0..).take_while(|n| self.peek(*n) == Some('#')).count();
        match (word.as_str(), self.peek(hashes)) {
            ("r" | "br" | "cr", Some('"')) => {
                self.advance(hashes);
                self.raw_text(hashes)
            }
            ("b" | "c", Some('"')) if hashes == 0 => self.text(),
            ("b", Some('\'')) if hashes == 0 => self.quote(),
            _ => word,
        }
    }

    fn text(&mut self) -> String {
        self.advance(1);
        while let Some(next) = self.peek(0).filter(|c| *c != '"') {
            self.advance(if next == '\\' { 2 } else { 1 });
        }
        self.advance(1);
        "\"".to_owned()
    }

    fn raw_text(&mut self, hashes: usize) -> String {
        self.advance(1);
        let end = format!("\"{}", "#".repeat(hashes));
        while self.peek(0).is_some() && !self.starts_with(&end) {
            self.advance(1);
        }
        self.advance(end.len());
        "\"".to_owned()
    }

    /// A character, or the name of a lifetime.
    fn quote(&mut self) -> String {
        self.advance(1);
        if self.peek(0) == Some('\\') {
            self.advance(2);
        } else if self.peek(1) != Some('\'') {
            return format!("'{}", self.word());
        }
        while self.peek(0).is_some_and(|c| c != '\'') {
            self.advance(1);
        }
        self.advance(1);
        "'".to_owned()
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(n, c)| self.peek(n) == Some(c))
    }

    fn advance(&mut self, by: usize) {
        for _ in 0..by {
            self.line += usize::from(self.peek(0) == Some('\n'));
            self.at += 1;
        }
    }
}

#[test]
fn comments_and_literals_hide_what_is_in_them() {
    let source = "a // crate::x\n/* b /* c */ d */ e \"crate::\\\"y\" r#\"crate::\"z\"# 'x' '\\'' b'\\n' f::<'g>()";
    let texts: Vec<_> = tokens(source).into_iter().map(|token| token.text).collect();
    assert_eq!(texts, ["a", "e", "\"", "\"", "'", "'", "'", "f", "::", "<", "'g", ">", "(", ")"]);
}

#[test]
fn a_token_knows_its_line() {
    let lines: Vec<_> = tokens("a\n/*\n*/ b \"\n\" c").into_iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 3, 3, 4]);
}
