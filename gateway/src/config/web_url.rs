//! A URL of the configuration over https or http, without user and password. `Debug` and `Serialize` give it without secrets in
//! its query.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::redacted;

/// What a URL is for, which says what it may be.
pub trait Purpose {
    /// Why a text is not such a URL.
    type Error: fmt::Display;
    /// The error of a text that does not parse.
    const FORM: Self::Error;
    /// The error of a URL that names a user.
    const USER: Self::Error;

    /// Fails if the URL has another scheme or host than it may have.
    ///
    /// # Errors
    /// The error of this purpose.
    fn check(url: &Url) -> Result<(), Self::Error>;
}

/// A URL for this purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl<P>(pub(super) Url, PhantomData<P>);

impl<P> WebUrl<P> {
    /// The URL with its query: for requests.
    pub(crate) fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The URL without secrets in its query: for people.
    pub(crate) fn shown(&self) -> String {
        redacted(self.expose())
    }

    /// The host: for logs and warnings.
    pub(crate) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Whether it needs TLS.
    pub(crate) fn is_private(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl<P: Purpose> FromStr for WebUrl<P> {
    type Err = P::Error;

    fn from_str(text: &str) -> Result<Self, P::Error> {
        let mut url = Url::parse(text).map_err(|_| P::FORM)?;
        P::check(&url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(P::USER);
        }
        url.set_fragment(None);
        Ok(Self(url, PhantomData))
    }
}

impl<P> fmt::Debug for WebUrl<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl<P> Serialize for WebUrl<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl<'de, P: Purpose> Deserialize<'de> for WebUrl<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
