//! The way from an error's text to its cause and cure: its entry in `docs/errors.md`.

use std::fmt::Display;

/// The end of an error's text that names its entry. `code` is a close code, a code of the native protocol, or an HTTP status.
pub(crate) fn see(code: impl Display) -> String {
    format!("; see docs/errors.md#{code}")
}
