//! Who a client is, as far as it has proven that.

use std::sync::{Arc, LazyLock};

use super::rights::Rights;

/// The proven identity of a client. One value is shared by the connection and by decisions about it.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The user: the token's `sub`. `None` if the client is anonymous.
    pub(crate) user: Option<Box<str>>,
    /// What others see of the user, as JSON.
    pub(crate) info: Option<Box<str>>,
    /// What the token allows. Equal rights are shared.
    pub(crate) rights: Arc<Rights>,
    /// The channels that the token subscribes the client to.
    pub(crate) subscribe: Box<[Box<str>]>,
    /// What names the token. `None` if the client is anonymous.
    pub(crate) token: Option<Token>,
}

/// What is kept of a token, to end it and to revoke it. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// When it expires.
    pub(crate) expires: u64,
    /// When it was issued, if it says so.
    pub(crate) issued: Option<u64>,
    /// A hash of its id (`jti`), if it has one.
    pub(crate) id: Option<u128>,
}

impl Identity {
    /// The identity of all clients that have proven nothing.
    pub(crate) fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(Arc::default);
        Arc::clone(&ANONYMOUS)
    }

    /// The user's name; `None` if the client is anonymous.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}
