//! Why a token is refused. The texts say what is wrong and what to do, and never show any part of the token.

use crate::protocol::Failure;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It is not a token of the expected form.
    #[error("the token cannot be used: {0}")]
    Malformed(&'static str),
    /// It is longer than a head or a frame should carry.
    #[error("the token is longer than 8 KiB: put less into it")]
    TooLong,
    /// Its key is for another algorithm.
    #[error("the token's algorithm is not the one that its key is for: sign it with the key's own algorithm")]
    Algorithm,
    /// No key has the name that it names.
    #[error("no key for this token is known: sign it with a key of `auth.keys` or `auth.jwks`, and name it in `kid`")]
    UnknownKey,
    /// The signature does not match.
    #[error("the token's signature is wrong: it was signed with another key, or changed")]
    Signature,
    /// Its time is over.
    #[error("the token has expired: get a new one")]
    Expired,
    /// Its time has not begun (`nbf`), or it comes from the future (`iat`).
    #[error("the token is not valid yet: compare the clocks of this node and of the token's issuer")]
    NotYet,
    /// It is valid for longer than a token may be.
    #[error("the token is valid for longer than `auth.max_life`: let it expire earlier")]
    Lifetime,
    /// `iss` is not one of `auth.issuer`.
    #[error("the token's `iss` is not an issuer that this node accepts (`auth.issuer`)")]
    Issuer,
    /// `aud` has none of `auth.audience`.
    #[error("the token is not for this service: its `aud` must hold a name from `auth.audience`")]
    Audience,
    /// The keys could not be fetched yet, or revocations not read.
    #[error("this node cannot check tokens yet, because it has not read the keys or the revocations: retry")]
    Unavailable,
    /// It was revoked.
    #[error("the token has been revoked: get a new one")]
    Revoked,
    /// There is no such ticket.
    #[error("the ticket is not known: it has expired, or was not made by this cluster; get a new one")]
    TicketUnknown,
    /// The ticket was used before.
    #[error("the ticket has been used: get a new one for each connection")]
    TicketUsed,
}

impl Refused {
    /// Whether the same token may be accepted later.
    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// The reason as a short name, for logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Lifetime => "lifetime",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Unavailable => "unavailable",
            Self::Revoked => "revoked",
            Self::TicketUnknown => "ticket_unknown",
            Self::TicketUsed => "ticket_used",
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused.is_temporary() {
            true => Self::for_now("unavailable", refused.to_string()),
            false => Self::new("unauthorised", refused.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_words_and_a_name_of_its_own_and_only_one_is_temporary() {
        let all = [
            Refused::Malformed("why"),
            Refused::TooLong,
            Refused::Algorithm,
            Refused::UnknownKey,
            Refused::Signature,
            Refused::Expired,
            Refused::NotYet,
            Refused::Lifetime,
            Refused::Issuer,
            Refused::Audience,
            Refused::Unavailable,
            Refused::Revoked,
            Refused::TicketUnknown,
            Refused::TicketUsed,
        ];
        for (at, refused) in all.iter().enumerate() {
            assert!(!all[..at].iter().any(|other| other.label() == refused.label()), "{refused}");
            assert_eq!(refused.is_temporary(), refused.to_string().ends_with("retry"), "{refused}");
        }
    }
}
