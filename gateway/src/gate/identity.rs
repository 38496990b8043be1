//! Who a client is, as far as it has proven that.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, LazyLock};

use smol_str::SmolStr;

use super::rights::Rights;

/// The proven identity of a client. One value is shared by the connection and by decisions about it.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The user: the token's `sub`. `None` if the client is anonymous. Names of up to 23 bytes take no memory of their own.
    pub(crate) user: Option<SmolStr>,
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
    pub(crate) info: Option<Arc<str>>,
    /// The channels that the token subscribes the client to.
    pub(crate) subscribe: Box<[Box<str>]>,
    /// What the client may do at most, whatever the rules say: a ticket gives no more than the key that made it may do.
    pub(crate) within: Option<Arc<Rights>>,
}

/// What is kept of a token, to end it and to revoke it, in 16 bytes. Times are seconds since 1970; those after the year 2106
/// count as its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    expires: NonZeroU32,
    issued: Option<NonZeroU32>,
    id: Option<NonZeroU64>,
}

impl Token {
    /// `id` is a hash of the token's `jti`.
    pub(crate) fn new(expires: u64, issued: Option<u64>, id: Option<u64>) -> Self {
        let seconds =
            |time: u64| NonZeroU32::MIN.saturating_add(u32::try_from(time.saturating_sub(1)).unwrap_or(u32::MAX));
        Self { expires: seconds(expires), issued: issued.map(seconds), id: id.and_then(NonZeroU64::new) }
    }

    /// A client that a backend let in, which has no token. It counts as one that was issued at that time, and ends only if the
    /// backend says when.
    pub(crate) fn of_backend(now: u64, expires: Option<u64>) -> Self {
        Self::new(expires.unwrap_or(u64::MAX), Some(now), None)
    }

    /// Whether it expires at all.
    pub(crate) fn ends(self) -> bool {
        self.expires < NonZeroU32::MAX
    }

    /// When it expires.
    pub(crate) fn expires(self) -> u64 {
        self.expires.get().into()
    }

    /// A hash of its id (`jti`), if it has one.
    pub(crate) fn id(self) -> Option<u64> {
        self.id.map(NonZeroU64::get)
    }

    /// The second in which it was issued, at the earliest. `longest` is the longest life of a token, in seconds.
    pub(crate) fn issued_by(self, longest: u64) -> u64 {
        self.issued.map_or(self.expires().saturating_sub(longest), |issued| issued.get().into())
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

    /// What others see of the user, as JSON.
    pub(crate) fn info(&self) -> Option<Arc<str>> {
        self.extras.as_ref()?.info.clone()
    }

    /// What the client may do at most; `None` if the rules and its rights alone decide.
    pub(super) fn within(&self) -> Option<&Rights> {
        self.extras.as_ref()?.within.as_deref()
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
        // With the counters of its `Arc`, and what the connections of one user share, a tenth of an idle connection.
        assert!(size_of::<Identity>() <= 56, "{}", size_of::<Identity>());
    }

    #[test]
    fn times_of_a_token_are_kept_to_the_second_until_2106() {
        let token = Token::new(1_800_000_000, Some(1_700_000_000), Some(7));
        assert_eq!((token.expires(), token.issued_by(60), token.id()), (1_800_000_000, 1_700_000_000, Some(7)));
        let last = u64::from(u32::MAX);
        let token = Token::new(u64::MAX, None, None);
        assert_eq!((token.expires(), token.issued_by(60), token.id()), (last, last - 60, None));
        assert_eq!(Token::new(0, Some(0), None).issued_by(60), 1);
    }
}
