//! Checks the names of channels.

use crate::protocol::Failure;

/// Checks that a channel's name is at most `most` bytes long, safe in logs and URLs, and cannot be mistaken for a
/// pattern.
pub(super) fn check(name: &str, most: usize) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::new("bad_channel", why));
    if name.is_empty() || name.len() > most {
        return refuse(format!("a channel's name has 1 to {most} bytes; this one has {}", name.len()));
    }
    // Most names are plain ASCII, and are checked at once.
    if name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'*')) {
        return Ok(());
    }
    let forbidden =
        |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}' | '*' | '\u{2028}' | '\u{2029}');
    match name.chars().find(forbidden) {
        Some(c) => {
            refuse(format!("a channel's name must not contain {c:?}: no spaces, control characters, `{{`, `}}` or `*`"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_name_is_safe_in_logs_and_not_a_pattern() {
        for good in ["a", "news", "chat:room-1", "/ws/echo", "größe", "a.b_c@d#e?f=g&h", "日本語"] {
            assert_eq!(check(good, 255), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", " ", "a b", "a\r\nb", "\u{1b}[31m", "a\0", "{}", "*", "news*", "\u{85}", "\u{2028}", &long] {
            assert_eq!(check(bad, 255).map_err(|failure| failure.code), Err("bad_channel"), "{bad:?}");
        }
    }
}
