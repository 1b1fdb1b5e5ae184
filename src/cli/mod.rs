//! The commands, one file each.
//!
//! Exit codes: 0, it is done; 1, the configuration is bad or the command failed; 2, the command line is not understood.
//! Results go to standard output, everything said about them to standard error.

mod arguments;
pub mod cert;
pub mod check;
pub mod demo;
pub mod explain;
pub mod init;
pub mod key;
pub mod node;
mod observed;
pub mod ready;
mod reload;
pub mod run;
pub mod schema;
mod service;
pub mod shell;
pub mod token;
pub mod user;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use arguments::Format;
use clap::{CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use tokio::runtime::{self, Runtime};

use crate::{
    config::{Config, Report},
    telemetry,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  it is done; for `run`: drained after SIGTERM or SIGINT
  1  the configuration is bad, or the command failed
  2  the command line is not understood

First steps:
  portcullis init --upstream http://127.0.0.1:9000
  portcullis check
  portcullis run";

/// A reverse-proxy authentication gateway.
///
/// Portcullis stands in front of backends that know nothing of modern sign-in: it terminates TLS, verifies who is calling,
/// limits how often they may, tells the backend who they are in headers that cannot be forged, and forwards. It can be the
/// login server too.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// The configuration; relative paths in it start at the folder above this file's.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "config/gateway.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a configuration, a development certificate and a data folder.
    Init(init::InitCommand),
    /// Serve.
    ///
    /// Serves until SIGTERM or SIGINT, then drains: exit 0 when every exchange has ended, or at server.drain_timeout.
    Run(run::RunCommand),
    /// Ask a running gateway whether it is ready: exit 0 or 1.
    Ready,
    /// Name every mistake of the configuration, and print who may do what on each route.
    Check(check::CheckCommand),
    /// Tell what would become of a request, step by step, and why; forwards nothing.
    Explain(explain::ExplainCommand),
    /// Serve a demonstration: gateway, sample upstream and sample user, without any file.
    Demo(demo::DemoCommand),
    /// Manage accounts: add, list, roles, passwords, disable, log out, invite, import.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Manage the keys that sign access tokens, or assertions to upstreams: list, rotate, revoke, encrypt anew.
    Key(key::KeyArguments),
    /// Issue a token for a test, or show what a token says.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make certificates.
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Print what the configuration may say, as a JSON Schema for editors.
    Schema(schema::SchemaCommand),
    /// Print the completions of a shell.
    Completions(shell::CompletionsCommand),
    /// Print a manual page.
    Man(shell::ManCommand),
}

/// Runs the command that the arguments name; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap, printed to standard output and of exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    dispatch(arguments).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config;
    match arguments.command {
        Command::Init(command) => init::run(&command),
        Command::Run(command) => run::run(&command, &config).map(|()| ExitCode::SUCCESS),
        Command::Ready => ready::run(crate::config::load(&config)?.server.admin_listen),
        Command::Check(command) => check::run(&command, &config),
        Command::Explain(command) => explain::run(command, &config),
        Command::Demo(command) => demo::run(&command).map(|()| ExitCode::SUCCESS),
        Command::User(command) => audited(&config, |config| {
            let accounts = config.accounts.as_ref();
            let accounts =
                accounts.context("accounts are off: the configuration has no [accounts]")?;
            user::run(command, accounts, &config.tls)
        }),
        Command::Key(arguments) => audited(&config, |config| key::run(&arguments, config)),
        Command::Token(command) => audited(&config, |config| {
            let accounts = config.accounts.as_ref();
            token::run(command, accounts, &config.issuers)
        }),
        Command::Cert(command) => cert::run(&command),
        Command::Schema(command) => schema::run(&command),
        Command::Completions(asked) => shell::completions(&asked, Arguments::command()),
        Command::Man(asked) => shell::man(&asked, Arguments::command()),
    }
}

/// Runs a command that may change what the gateway keeps: what it does is in the audit file, where there is one.
fn audited(
    path: &Path,
    command: impl FnOnce(&Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let config = crate::config::load(path)?;
    telemetry::init_audit(&config.log).context("log.audit_file cannot be written")?;
    let ended = command(&config);
    telemetry::flush_audit();
    ended
}

/// What the commands run on that wait for something.
pub(crate) fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Writes a line to standard output. A reader that has gone away (`| head`) is no failure.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, which nobody may be reading.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A moment, of seconds since 1970, as people are shown it: RFC 3339, in UTC. Programs get the seconds.
pub(crate) fn show_time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().map(Timestamp::from_second);
    match time {
        Some(Ok(time)) => time.to_string(),
        Some(Err(_beyond_all_calendars)) => seconds.to_string(),
        None => seconds.to_string(),
    }
}

/// Writes a report to standard error, in colour on a terminal unless `NO_COLOR` is set.
pub(crate) fn tell_report(report: &Report) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tell(&report.render(io::stderr().is_terminal() && !plain));
}

/// Says why a command failed, causes included.
fn complain(error: &anyhow::Error) {
    match error.downcast_ref::<Report>() {
        Some(report) => tell_report(report),
        None => tell(&format!("error: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[track_caller]
    fn refused(args: &[&str]) {
        let args = ["portcullis"].iter().chain(args);
        let error = Arguments::try_parse_from(args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }

    #[test]
    fn bad_usage_is_exit_code_2() {
        refused(&[]);
        refused(&["serve"]);
        refused(&["check", "--format", "xml"]);
        refused(&["check", "config/gateway.toml"]);
        refused(&["init", "--upstream"]);
        refused(&["cert"]);
        refused(&["--config"]);
    }

    #[test]
    fn config_is_taken_before_and_after_the_command() {
        for args in [
            ["portcullis", "--config", "x.toml", "check"],
            ["portcullis", "check", "--config", "x.toml"],
        ] {
            let arguments = Arguments::try_parse_from(args).unwrap();
            assert_eq!(arguments.config, PathBuf::from("x.toml"));
        }
    }

    /// Runs a command as the program would.
    fn exit(args: &[&str]) -> String {
        let args = ["portcullis"].iter().chain(args).map(OsString::from);
        format!("{:?}", main(args))
    }

    #[test]
    fn exit_codes_are_0_1_and_2() {
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let config = folder.path().join("config/gateway.toml");
        let config = config.to_str().unwrap();
        assert_eq!(exit(&["check", "--config", config]), code(1), "no file");
        assert_eq!(exit(&["init", "--dir", dir, "--upstream", "x"]), code(1));
        assert_eq!(exit(&["init", "--dir", dir]), code(0));
        assert_eq!(exit(&["init", "--dir", dir]), code(1), "never overwrites");
        assert_eq!(exit(&["check", "--config", config]), code(0));
        assert_eq!(
            exit(&["check", "--format", "json", "--config", config]),
            code(0)
        );
        std::fs::write(config, "upsteam = 1").unwrap();
        assert_eq!(exit(&["check", "--config", config]), code(1));
        assert_eq!(
            exit(&["check", "--format", "json", "--config", config]),
            code(1)
        );
        let certs = folder.path().join("certs");
        let certs = certs.to_str().unwrap();
        let key = || std::fs::read(folder.path().join("certs/dev.key")).unwrap();
        let before = key();
        assert_eq!(
            exit(&["cert", "dev", "--dir", certs]),
            code(1),
            "files are there"
        );
        assert_eq!(
            exit(&["cert", "dev", "a b", "--dir", certs, "--force"]),
            code(1)
        );
        assert_eq!(key(), before);
        assert_eq!(
            exit(&["cert", "dev", "x.test", "--dir", certs, "--force"]),
            code(0)
        );
        assert_ne!(key(), before);
        assert_eq!(exit(&["check", "--no-such-option"]), code(2));
        assert_eq!(exit(&["--help"]), code(0));
        assert_eq!(exit(&["--version"]), code(0));
    }
}
