//! Who a client is, as far as it has proven that.

use std::sync::{Arc, LazyLock};

use super::rights::Rights;

/// The proven identity of a client. One value is shared by the connection and by decisions about it.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The user: the token's `sub`. `None` if the client is anonymous.
    pub(crate) user: Option<Box<str>>,
    /// What the token allows, if it lists channels: then it allows nothing else. Equal rights are shared.
    pub(crate) rights: Option<Arc<Rights>>,
    /// What few tokens have.
    pub(crate) extras: Option<Box<Extras>>,
    /// What names the token. `None` if the client is anonymous.
    pub(crate) token: Option<Token>,
}

/// The parts of a token that are kept apart, because few tokens have them.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// What others see of the user, as JSON.
    #[cfg_attr(not(test), expect(dead_code, reason = "presence shows it"))]
    pub(crate) info: Option<Box<str>>,
    /// The channels that the token subscribes the client to.
    pub(crate) subscribe: Box<[Box<str>]>,
}

/// What is kept of a token, to end it and to revoke it. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// When it expires.
    pub(crate) expires: u64,
    /// When it was issued, if it says so.
    pub(crate) issued: Option<u64>,
    /// A hash of its id (`jti`), if it has one.
    pub(crate) id: Option<u64>,
}

impl Token {
    /// The second in which the token was issued, at the earliest. `longest` is the longest life of a token, in seconds.
    pub(crate) fn issued_by(self, longest: u64) -> u64 {
        self.issued.unwrap_or(self.expires.saturating_sub(longest))
    }
}

impl Identity {
    /// The identity of all clients that have proven nothing.
    pub(crate) fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(Arc::default);
        Arc::clone(&ANONYMOUS)
    }

    /// The channels that the token subscribes the client to.
    pub(crate) fn subscribe(&self) -> &[Box<str>] {
        self.extras.as_ref().map_or(&[], |extras| &extras.subscribe)
    }

    /// The user's name; `None` if the client is anonymous.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_takes_little_memory() {
        // With the counters of its `Arc` and the user's name, about a tenth of an idle connection.
        assert!(size_of::<Identity>() <= 80, "{}", size_of::<Identity>());
    }
}
