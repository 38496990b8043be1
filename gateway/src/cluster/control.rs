//! The records of the cluster: their JSON.
//!
//! Fields that a release does not know are ignored, so later releases can add others.

use serde::{Deserialize, Serialize};

use crate::gate::Identity;

/// The channel of these records. Clients cannot name it: their channels have no braces.
pub(crate) const CHANNEL: &str = "{cluster}";

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// Tokens that are no longer valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) revoke: Vec<Revocation>,
    /// Whether the nodes shall write again what they know, because one of them may have missed records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ask: bool,
}

/// Tokens that are no longer valid. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    /// The one token with this id: the hash that [`token_id`](crate::auth::token_id) makes of its `jti`, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// All tokens of this user that were issued until `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// All tokens that were issued until then, of one user or of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    /// When all these tokens have expired, so that this can be forgotten.
    pub(crate) until: u64,
}

impl Revocation {
    /// The token's id, if this is about one token.
    pub(super) fn token(&self) -> Option<u64> {
        u64::from_str_radix(self.token.as_deref()?, 16).ok()
    }

    /// Whether this revokes the token of an identity. `longest` is the longest life of a token: a token that does not say
    /// when it was issued may be that old.
    pub(crate) fn ends(&self, identity: &Identity, longest: u64) -> bool {
        let Some(token) = identity.token else { return false };
        if self.token.is_some() {
            return self.token().is_some_and(|id| token.id == Some(id));
        }
        let of_user = self.user.as_deref().is_none_or(|user| identity.user() == Some(user));
        of_user && self.before.is_some_and(|before| token.issued_by(longest) <= before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token_id;
    use crate::gate::Token;

    fn identity(user: &str, issued: Option<u64>, jti: Option<&str>) -> Identity {
        let token = Some(Token { expires: 10_000, issued, id: jti.map(token_id) });
        Identity { user: Some(user.into()), token, ..Identity::default() }
    }

    fn revocation(json: &str) -> Revocation {
        serde_json::from_str(json).expect("a revocation")
    }

    #[test]
    fn a_revocation_ends_the_tokens_that_it_names() {
        let one = format!(r#"{{"token":"{:016x}","until":9}}"#, token_id("t1"));
        let (one, user, all) = (
            revocation(&one),
            revocation(r#"{"user":"ann","before":500,"until":9}"#),
            revocation(r#"{"before":500,"until":9,"later":true}"#),
        );
        for (identity, expected) in [
            (identity("ann", Some(500), Some("t1")), [true, true, true]),
            (identity("ann", Some(501), Some("t1")), [true, false, false]),
            (identity("bob", Some(499), Some("t2")), [false, false, true]),
            (identity("ann", None, None), [false, true, true]),
            (Identity::default(), [false, false, false]),
        ] {
            assert_eq!([&one, &user, &all].map(|what| what.ends(&identity, 9_600)), expected, "{identity:?}");
        }
        assert!(!user.ends(&identity("ann", None, None), 1_000), "issued at 9,000 or later");
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let control = Control { revoke: vec![revocation(r#"{"user":"a\"b","before":5,"until":9}"#)], ask: false };
        let json = serde_json::to_string(&control).expect("it is JSON");
        assert_eq!(json, r#"{"revoke":[{"user":"a\"b","before":5,"until":9}]}"#);
        assert_eq!(serde_json::from_str::<Control>(&json).expect("its own JSON"), control);
        assert_eq!(serde_json::from_str::<Control>(r#"{"joined":{}}"#).expect("unknown"), Control::default());
    }
}
