//! The name under which a channel's members see one of them.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

/// A member: a user, however many connections it has, or one connection without a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    text: SmolStr,
    client: bool,
}

impl Name {
    /// A user, by the `sub` of its token.
    pub(crate) fn user(user: &str) -> Self {
        Self { text: user.into(), client: false }
    }

    /// A client without a user, by its client id.
    pub(crate) fn client(client: &str) -> Self {
        Self { text: client.into(), client: true }
    }

    /// The user's name or the client's id.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What [`text`](Self::text) is: `user` or `client`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.client { "client" } else { "user" }
    }
}

/// As a page's `next` has it.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.text)
    }
}

/// Why a text is not the end of a page.
#[derive(Debug, thiserror::Error)]
#[error("not a `next` that an earlier page gave")]
pub(crate) struct InvalidName;

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once(':') {
            Some(("user", user)) => Ok(Self::user(user)),
            Some(("client", client)) => Ok(Self::client(client)),
            _ => Err(InvalidName),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_a_page_writes_it() {
        for name in [Name::user("a:b"), Name::user(""), Name::client("x")] {
            assert_eq!(name.to_string().parse::<Name>().expect("its own text"), name);
        }
        assert!("ann".parse::<Name>().is_err());
        assert_eq!(size_of::<Name>(), 32, "names are the largest part of a member");
    }
}
