//! `portcullis completions` and `portcullis man`: what a shell and `man` know of the command line, made from the command line
//! itself.

use std::{io, process::ExitCode};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsCommand {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Of which command.
#[derive(Debug, Args)]
pub struct ManCommand {
    /// The command, `user` or `user add`; without one the page of the program.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints the script of a shell.
///
/// # Errors
/// Only where it could not be written.
pub fn completions(asked: &CompletionsCommand, mut program: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut program, "portcullis", &mut script);
    written(&script)
}

/// Prints a manual page, as roff.
///
/// # Errors
/// A command that there is not, or a page that could not be written.
pub fn man(asked: &ManCommand, program: Command) -> anyhow::Result<ExitCode> {
    let mut name = "portcullis".to_owned();
    let mut command = program;
    // So that options of the program stand in the pages of its commands.
    command.build();
    for part in &asked.command {
        name = format!("{name}-{part}");
        let found = command.find_subcommand(part);
        command = found
            .ok_or_else(|| {
                anyhow::anyhow!("there is no command `{part}`; portcullis --help has all")
            })?
            .clone();
    }
    let mut page = Vec::new();
    Man::new(command)
        .title(name)
        .manual("Portcullis")
        .render(&mut page)?;
    written(&page)
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
fn written(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match io::Write::write_all(&mut io::stdout(), bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    fn names(command: &Command, before: &str, all: &mut Vec<String>) {
        for inner in command
            .get_subcommands()
            .filter(|one| one.get_name() != "help")
        {
            let name = format!("{before} {}", inner.get_name()).trim().to_owned();
            names(inner, &name, all);
            all.push(name);
        }
    }

    #[test]
    fn every_command_has_a_page_and_others_have_none() {
        let mut all = Vec::new();
        names(&Arguments::command(), "", &mut all);
        assert!(all.contains(&"user add".to_owned()), "{all:?}");
        for name in &all {
            let command = name.split(' ').map(ToOwned::to_owned).collect();
            man(&ManCommand { command }, Arguments::command()).unwrap();
        }
        for command in [&["serve"][..], &["user", "ad"], &["check", "x"]] {
            let command = command.iter().map(|part| (*part).to_owned()).collect();
            let error = man(&ManCommand { command }, Arguments::command()).unwrap_err();
            assert!(error.to_string().contains("there is no command"), "{error}");
        }
    }

    #[test]
    fn every_shell_knows_every_command() {
        let mut program = Arguments::command();
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, "portcullis", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in program.get_subcommands() {
                assert!(
                    script.contains(command.get_name()),
                    "{shell} {}",
                    command.get_name()
                );
            }
        }
    }
}
