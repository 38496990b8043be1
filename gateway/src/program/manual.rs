//! `completions` and `man`: texts that are generated from the definition of the command line.

use clap::Command;
use clap::error::ErrorKind;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// How to use the completions, for the help.
pub(super) const COMPLETIONS: &str = "For bash: fanfare completions bash > ~/.local/share/bash-completion/completions/fanfare. For zsh, into a file \
                                      _fanfare in a folder of $fpath. For fish: ~/.config/fish/completions/fanfare.fish.";
/// How to use the man pages, for the help.
pub(super) const MAN: &str =
    "fanfare man | man -l -     or     fanfare man subscribe > /usr/local/share/man/man1/fanfare-subscribe.1";

/// The completions of a program for a shell.
pub(super) fn completions(mut program: Command, shell: Shell) -> String {
    let name = program.get_bin_name().unwrap_or(program.get_name()).to_owned();
    let mut text = Vec::new();
    generate(shell, &mut program, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The man page of a program, or of one of its commands, in roff.
pub(super) fn page(mut program: Command, about: Option<&str>) -> Result<String, clap::Error> {
    program.build();
    let command = match about {
        None => Some(program.clone()),
        Some(name) => program.find_subcommand(name).cloned(),
    };
    let unknown = || program.clone().error(ErrorKind::InvalidValue, "there is no such command: --help lists them");
    let command = command.ok_or_else(unknown)?;
    let title = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
    let mut text = Vec::new();
    let source = format!(
        "{} {}",
        program.get_display_name().unwrap_or(program.get_name()),
        program.get_version().unwrap_or_default()
    );
    Man::new(command).title(title).source(source).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::cli::{Command, Name, parse};

    fn printed(line: &str) -> Result<String, String> {
        let name = Name::new(Some(("fanfare", "1.2.3")), &[]);
        match parse(&name, line.split(' ').map(OsString::from)) {
            Ok(Command::Print(text)) => Ok(text),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_shell_gets_completions_for_all_commands() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let text = printed(&format!("fanfare completions {shell}")).expect(shell);
            for word in ["subscribe", "publish", "probe", "--config"] {
                assert!(text.contains(word.trim_start_matches('-')), "{shell}: {word}");
            }
        }
        assert!(printed("fanfare completions csh").is_err());
    }

    #[test]
    fn the_program_and_each_command_have_a_man_page() {
        let program = printed("fanfare man").expect("a page");
        assert!(
            program.starts_with(".ie") && program.contains(".TH fanfare 1") && program.contains("genkey"),
            "{program}"
        );
        let command = printed("fanfare man subscribe").expect("a page");
        assert!(command.contains(".TH fanfare-subscribe 1") && command.contains("fanfare 1.2.3"), "{command}");
        let unknown = printed("fanfare man nothing").expect_err("no command");
        assert!(unknown.contains("no such command"), "{unknown}");
    }
}
