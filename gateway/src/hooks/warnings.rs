//! What is doubtful in the hooks of a valid configuration, for `fanfare check`.
//!
//! Pure.

use crate::config::{Config, Hook, Who};

/// The warnings.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let hooks = &config.hooks;
    let mut warnings = Vec::new();
    for hook in Hook::ALL {
        let (name, fails_open) = (hook.name(), hooks.fail_open.contains(&hook));
        let Some(url) = hooks.url(hook) else {
            if fails_open {
                warnings.push(format!("`hooks.fail_open` has \"{name}\", but `hooks.{name}` has no URL"));
            }
            continue;
        };
        if url.is_exposed() {
            let host = url.host();
            warnings.push(format!(
                "`hooks.{name}` sends what clients say to {host} without TLS, and anyone on the way can change the answer: use \
                 https, or a host in a private network"
            ));
        }
        let asked = config.channels.iter().any(|rule| match hook {
            Hook::Connect => true,
            Hook::Subscribe => rule.subscribe == Some(Who::Hook),
            Hook::Publish => rule.publish == Some(Who::Hook),
        });
        if hook != Hook::Connect && !asked {
            warnings.push(format!("`hooks.{name}` is never asked: no rule of `channels` says {name} = \"hook\""));
        }
        if hook == Hook::Connect && fails_open {
            warnings.push(
                "`hooks.fail_open` has \"connect\": while the backend gives no answer, every client is let in without a user"
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
    fn hooks_that_are_exposed_or_never_asked_are_reported() {
        for (lines, words) in [
            ("", &[][..]),
            ("connect = \"https://api.example.com/hooks\"", &[]),
            ("connect = \"http://api.example.com/hooks?key=hunter2\"", &["`hooks.connect` sends"]),
            ("publish = \"http://127.0.0.1:3000/\"", &["`hooks.publish` is never asked"]),
            ("fail_open = [\"subscribe\"]", &["has \"subscribe\", but"]),
            ("connect = \"http://backend/\"\nfail_open = [\"connect\"]", &["every client is let in"]),
            ("subscribe = \"http://backend/\"\n[[channels]]\nmatch = \"*\"\nsubscribe = \"hook\"", &[]),
        ] {
            let config: Config = toml::from_str(&format!("[hooks]\n{lines}\n")).expect(lines);
            let warnings = warnings(&config);
            assert_eq!(warnings.len(), words.len(), "{warnings:?}");
            for (warning, words) in warnings.iter().zip(words) {
                assert!(warning.contains(words) && !warning.contains("hunter2"), "{warning}");
            }
        }
    }
}
