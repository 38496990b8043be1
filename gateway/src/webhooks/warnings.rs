//! What is doubtful in the webhooks of a valid configuration, for `fanfare check`.
//!
//! Pure.

use crate::config::{Config, WebhookEvent};
use crate::gate::Attendance;

/// The warnings.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let set = &config.webhooks;
    if set.endpoint.is_none() {
        let unused = (!set.secrets.is_empty())
            .then(|| "`webhooks.secrets` is not used: `webhooks.endpoint` is empty".to_owned());
        return unused.into_iter().collect();
    }
    let has = |wanted: &dyn Fn(Attendance) -> bool| config.channels.iter().any(|rule| wanted(rule.presence));
    let mut warnings = Vec::new();
    if set.events.is_empty() || set.channels.is_empty() {
        warnings.push(
            "nothing is sent to `webhooks.endpoint`: `webhooks.events` or `webhooks.channels` is empty".to_owned(),
        );
    } else if !has(&|presence| presence != Attendance::Off) {
        warnings.push(
            "nothing is sent to `webhooks.endpoint`: no rule of `channels` says presence = \"members\" or \"counts\""
                .to_owned(),
        );
    } else if !has(&|presence| presence == Attendance::Members) {
        let of_members = |event: &&WebhookEvent| matches!(event, WebhookEvent::Joined | WebhookEvent::Left);
        // All events are the default, which is no mistake.
        if set.events.iter().filter(of_members).count() == set.events.len() {
            warnings.push(
                "nothing is sent to `webhooks.endpoint`: \"joined\" and \"left\" need a rule of `channels` with presence = \"members\""
                    .to_owned(),
            );
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_that_can_never_be_sent_are_reported() {
        const URL: &str = "endpoint = \"http://127.0.0.1/\"\n";
        const RULE: &str = "[[channels]]\nmatch = \"*\"\npresence =";
        for (lines, words) in [
            (String::new(), None),
            ("secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]".to_owned(), Some("is not used")),
            (URL.to_owned(), Some("no rule")),
            (format!("{URL}{RULE} \"off\""), Some("no rule")),
            (format!("{URL}{RULE} \"counts\""), None),
            (format!("{URL}{RULE} \"members\""), None),
            (format!("{URL}events = [\"joined\"]\n{RULE} \"counts\""), Some("need a rule")),
            (format!("{URL}events = [\"vacated\"]\n{RULE} \"counts\""), None),
            (format!("{URL}events = []\n{RULE} \"counts\""), Some("is empty")),
            (format!("{URL}channels = []\n{RULE} \"counts\""), Some("is empty")),
        ] {
            let config: Config = toml::from_str(&format!("[webhooks]\n{lines}\n")).expect("a configuration");
            let warnings = warnings(&config);
            assert_eq!(warnings.len(), usize::from(words.is_some()), "{lines}: {warnings:?}");
            assert!(words.is_none_or(|words| warnings[0].contains(words)), "{lines}: {warnings:?}");
        }
    }
}
