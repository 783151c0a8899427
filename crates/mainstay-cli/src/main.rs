//! The program `mainstay`.
//!
//! An operator meets a database at night, through a terminal or a script, and needs three things of
//! the tool: that it says in one line what is wrong and what to try, that it never destroys anything
//! unasked, and that its exit code can be relied upon. What was typed (`args`) becomes what is meant
//! (`plan`), is carried out (`commands`), told (`output`, the only place that prints) and ends with a
//! number (`exit`).

mod args;
mod commands;
mod confirm;
mod exit;
mod failure;
mod interrupt;
mod output;
mod plan;

use args::Args;
use clap::Parser as _;
use clap::error::ErrorKind;
use exit::Exit;
use failure::{Failure, Result};
use mainstay::Config;
use output::{Listener, Output};
use plan::Plan;
use std::ffi::OsString;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match Args::try_parse_from(&arguments) {
        Ok(args) => carry_out(args).into(),
        Err(error) => explain(&error, &arguments).into(),
    }
}

fn carry_out(args: Args) -> Exit {
    let global = &args.global;
    log(global.verbose);
    let listener = Listener {
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose > 0,
    };
    let mut output = Output::new(listener);
    warn_of_misspelt_variables(&mut output);
    let ended = Plan::new(args, |name| std::env::var(name).ok()).and_then(|plan| {
        output.open(&plan);
        block_on(&plan, &mut output)
    });
    let exit = ended.unwrap_or_else(|failure| {
        output.failure(&failure);
        failure.exit
    });
    output.end(exit)
}

/// A limit that somebody believes in and that has no effect is worth a line.
fn warn_of_misspelt_variables(output: &mut Output) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, known) in Config::near_misses(names) {
        output.warning(&format!(
            "{name} is unknown and has no effect; did you mean {known}?"
        ));
    }
}

fn block_on(plan: &Plan, output: &mut Output) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // one command at a time, and the connections' own tasks
        .enable_all()
        .build()
        .map_err(|cause| Failure::start(&cause))?;
    let ended = runtime.block_on(commands::run(plan, output));
    // A question that nobody has answered must not keep the process.
    runtime.shutdown_background();
    ended
}

/// What clap has to say: help and version are results, everything else is a failure.
fn explain(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let json = args::wants_json(arguments);
    let mut output = Output::new(Listener {
        json,
        quiet: false,
        verbose: false,
    });
    let text = args::redacted(&error.to_string(), arguments);
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Mend,
    };
    if json && exit == Exit::Mend {
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        output.failure(&Failure::usage(message, "see mainstay --help"));
    } else {
        output.plain(exit, &text);
    }
    output.end(exit)
}

/// Logs go to standard error, and only when they are asked for: an error is told once, by the
/// command.
fn log(verbose: u8) {
    let filter = match verbose {
        0 => "off",
        1 => "warn,mainstay=info,mainstay_core=info",
        _ => {
            "info,mainstay=debug,mainstay_pool=debug,mainstay_postgres=debug,mainstay_sqlite=debug"
        }
    };
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::new(wanted),
        _ => EnvFilter::new(filter),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
