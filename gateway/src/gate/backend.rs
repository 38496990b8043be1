//! What the holder of a key of the HTTP API may do: rights, on channels that match patterns.
//!
//! Pure. A key needs no rule of `[[channels]]` to allow it: those are about clients. It keeps to what they say of messages.

use serde::{Deserialize, Serialize};

use super::pattern::{Name, Pattern};
use crate::protocol::Failure;

/// What a key of the API is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Publish messages.
    Publish,
    /// Read older messages.
    Read,
    /// End tokens.
    Admin,
}

impl Right {
    /// The right as configurations write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// The holder of a key.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) can: Box<[Right]>,
    pub(crate) channels: Box<[Pattern]>,
}

impl Backend {
    /// Fails if the key has not this right.
    pub(crate) fn check(&self, right: Right) -> Result<(), Failure> {
        match self.can.contains(&right) {
            true => Ok(()),
            false => {
                Err(forbidden(format!("this key has not the right `{}`: add it to `can` of the key", right.name())))
            }
        }
    }

    /// Fails if the key has not this right on a channel with a valid name.
    pub(super) fn check_on(&self, right: Right, channel: &str) -> Result<(), Failure> {
        self.check(right)?;
        let name = Name::new(channel);
        match self.channels.iter().any(|pattern| pattern.matches(&name, None)) {
            true => Ok(()),
            false => Err(forbidden("`channels` of this key does not match this channel".to_owned())),
        }
    }
}

fn forbidden(why: String) -> Failure {
    Failure::new("forbidden", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_allows_its_rights_on_channels_that_match() {
        let channels = Box::new(["chat:*".parse().expect("a pattern"), "news".parse().expect("a pattern")]);
        let backend = Backend { can: Box::new([Right::Publish]), channels };
        for (right, channel, allowed) in [
            (Right::Publish, "news", true),
            (Right::Publish, "chat:1", true),
            (Right::Publish, "chat", false),
            (Right::Publish, "other", false),
            (Right::Read, "news", false),
            (Right::Admin, "news", false),
        ] {
            assert_eq!(backend.check_on(right, channel).is_ok(), allowed, "{right:?} {channel}");
        }
    }
}
