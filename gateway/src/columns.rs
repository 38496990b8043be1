//! Text for a terminal: lines of limited width, and numbers with commas.

use std::fmt;

/// Width of a line, in columns.
const WIDTH: usize = 110;

/// Writes `text`, broken into lines that start at column `indent`. The cursor must already be at that column.
pub(crate) fn wrapped(f: &mut fmt::Formatter<'_>, indent: usize, text: &str) -> fmt::Result {
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
        } else if index > 0 {
            f.write_str(" ")?;
            column += 1;
        }
        f.write_str(word)?;
        column += length;
    }
    Ok(())
}

/// A whole number with commas.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wrapped(usize, String);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            wrapped(f, self.0, &self.1)
        }
    }

    #[test]
    fn wrapped_lines_start_at_the_indent() {
        let text = Wrapped(4, ["word"; 40].join(" ")).to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")), "{text}");
        assert_eq!(Wrapped(4, "x".repeat(200)).to_string(), "x".repeat(200), "a word is not broken");
    }

    #[test]
    fn commas_separate_thousands() {
        for (number, text) in [(0.0, "0"), (100.0, "100"), (1000.4, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
