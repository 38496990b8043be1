//! The rules for channels at the command line: `fanfare check` and `fanfare explain`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use real_brokers::Scratch;
use tests::binary;

const RULES: &str = "\
[[channels]]
match = \"news:*\"
subscribe = \"anyone\"

[[channels]]
match = \"news:sport\"
slow = \"latest\"
";

/// Runs `fanfare` with a file of rules.
fn run(arguments: &[&str], stdin: &str) -> Result<Output> {
    let folder = Scratch::new("rules")?;
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, RULES)?;
    let mut command = Command::new(binary("fanfare")?);
    command.args(arguments).arg("--config").arg(&file);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(stdin.as_bytes())?;
    Ok(child.wait_with_output()?)
}

#[test]
fn a_rule_without_effect_is_a_warning_with_its_line_and_no_failure() -> Result<()> {
    let output = run(&["check"], "")?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout)?, "Configuration file is valid\n");
    let warnings = String::from_utf8(output.stderr)?;
    for words in [
        "warning: rule 2 of `channels` (`news:sport` in ",
        "rules.toml (line 5)) never decides: rule 1 ",
        "warning: no rule of `channels` matches names such as \"other\"",
    ] {
        assert!(warnings.contains(words), "{words} in {warnings}");
    }
    Ok(())
}

#[test]
fn an_explanation_names_the_rule_and_its_exit_code_is_the_answer() -> Result<()> {
    for (channel, verb, words, code) in [
        ("news:today", "subscribe", "answer    yes", 0),
        ("news:today", "publish", "answer    no (unauthorised)", 1),
        ("sport", "subscribe", "answer    no (forbidden)", 1),
        ("news:*", "subscribe", "answer    no (bad_channel)", 1),
    ] {
        let output = run(&["explain", channel, verb], "")?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text.contains(words), "{text}");
        let ruled = channel != "sport" && text.contains("rules.toml (line 1)");
        assert!(ruled || text.contains("none of the 2 rules matches") || channel == "news:*", "{text}");
    }
    Ok(())
}

#[test]
fn of_a_rule_that_asks_a_hook_the_explanation_names_the_url_and_the_exit_code_is_another_one() -> Result<()> {
    let mut command = Command::new(binary("fanfare")?);
    command.args(["explain", "room:1", "subscribe"]).env("FANFARE__HOOKS__SUBSCRIBE", "https://app.example/hooks");
    let output = command.env("FANFARE__CHANNELS", "[{ match = \"*\", subscribe = \"hook\" }]").output()?;
    let text = String::from_utf8(output.stdout)?.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("answer your backend decides each time"), "{text}");
    assert!(text.contains("`hooks.subscribe`, https://app.example/hooks"), "{text}");
    assert_eq!((output.status.code(), String::from_utf8(output.stderr)?.as_str()), (Some(3), "a hook decides\n"));
    Ok(())
}

#[test]
fn a_token_that_is_not_accepted_is_not_shown() -> Result<()> {
    const CANARY: &str = "canary.canary.canary";
    for (given, stdin) in [(CANARY, ""), ("-", CANARY)] {
        let output = run(&["explain", "--token", given, "news:today", "subscribe"], stdin)?;
        let said = format!("{output:?}");
        assert!(output.status.code() == Some(1) && !said.contains("canary") && said.contains("token"), "{said}");
    }
    Ok(())
}
