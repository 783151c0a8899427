//! The only place that prints: for people with colour where it helps, for machines as one JSON
//! document, and for a pipe that was closed (`mainstay status | head -1`) not at all, without ado,
//! because the work itself must not end in the middle only because nobody reads on.

mod human;
mod json;
mod sink;

pub(crate) use human::{Page, Paint, bytes, counted, took};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan::{Place, Plan};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use sink::Sink;
use std::io::IsTerminal;
use std::time::Duration;

/// What a command found or did.
pub(crate) trait Report: Serialize {
    /// Tells people.
    fn show(&self, page: &mut Page);
}

/// Who listens, and how much they want to hear.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// A machine: one JSON document on standard output.
    pub(crate) json: bool,
    /// Only errors.
    pub(crate) quiet: bool,
    /// The causes of errors too.
    pub(crate) verbose: bool,
}

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    listener: Listener,
    out: Sink,
    err: Sink,
    about: Option<About>,
}

/// Which command speaks of which database; a part of every document.
#[derive(Debug, Serialize)]
struct About {
    command: &'static str,
    database: Place,
}

impl Output {
    /// Onto the process's own streams.
    pub(crate) fn new(listener: Listener) -> Self {
        let out = std::io::stdout();
        let err = std::io::stderr();
        let (out_colour, err_colour) = (colour(out.is_terminal()), colour(err.is_terminal()));
        Self {
            listener,
            out: Sink::new(Box::new(out), out_colour),
            err: Sink::new(Box::new(err), err_colour),
            about: None,
        }
    }

    /// Says which database it is, before anything is asked of it.
    pub(crate) fn open(&mut self, plan: &Plan) {
        if self.people() {
            let mut page = self.err.page();
            page.paragraph(Paint::Dim, &format!("Database: {}", plan.place));
            self.err.write(page.text());
        }
        let Place {
            system,
            name,
            at,
            schema,
        } = &plan.place;
        let database = Place {
            system,
            name: name.clone(),
            at: at.clone(),
            schema: schema.clone(),
        };
        self.about = Some(About {
            command: plan.task.name(),
            database,
        });
    }

    /// Tells the result.
    pub(crate) fn report(&mut self, report: &impl Report) {
        if self.listener.json {
            let document = json::document(self.about.as_ref(), report);
            self.out.write(&document);
        } else if !self.listener.quiet {
            let mut page = self.out.page();
            report.show(&mut page);
            self.out.write(page.text());
        }
    }

    /// Tells why it was not done.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if self.listener.json {
            let document = json::failure(self.about.as_ref(), failure);
            self.out.write(&document);
            return;
        }
        if self.people() && !failure.applied.is_empty() {
            let mut page = self.out.page();
            for step in &failure.applied {
                page.step(step);
            }
            self.out.write(page.text());
        }
        let mut page = self.err.page();
        page.failure(failure, self.listener.verbose);
        self.err.write(page.text());
    }

    /// Tells what does not keep the command from being carried out.
    pub(crate) fn warning(&mut self, text: &str) {
        if self.people() {
            let mut page = self.err.page();
            page.paragraph(Paint::Due, &format!("warning: {text}"));
            self.err.write(page.text());
        }
    }

    /// Asks a question; the cursor stays behind it.
    pub(crate) fn ask(&mut self, question: &str) {
        self.err.write(question);
    }

    /// Prints what clap wants to be printed.
    pub(crate) fn plain(&mut self, exit: Exit, text: &str) {
        let sink = if exit == Exit::Done {
            &mut self.out
        } else {
            &mut self.err
        };
        sink.write(text);
    }

    /// Shows that work is going on whose length nobody knows; nothing unless people watch.
    pub(crate) fn spinner(&self, what: &'static str) -> Running {
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        let bar = self.bar(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Running(bar)
    }

    /// Shows how far work is; nothing unless people watch.
    pub(crate) fn progress(&self, what: &'static str) -> Running {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}% {elapsed}");
        let bar = self.bar(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Running(bar)
    }

    fn bar(&self, style: ProgressStyle) -> ProgressBar {
        let target = if self.people() {
            // Hides itself when standard error is no terminal.
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        ProgressBar::with_draw_target(Some(1), target).with_style(style)
    }

    fn people(&self) -> bool {
        !self.listener.json && !self.listener.quiet
    }

    /// How the program ends: a result that could not be written is not a success. A reader that has
    /// gone away is, for it had read enough.
    pub(crate) fn end(mut self, exit: Exit) -> Exit {
        match self.out.failed() {
            Some(cause) if exit == Exit::Done => {
                let failure = Failure::output(&cause);
                let mut page = self.err.page();
                page.failure(&failure, self.listener.verbose);
                self.err.write(page.text());
                failure.exit
            }
            _ => exit,
        }
    }
}

/// Work that is shown while it goes on; the line disappears with this value.
#[derive(Debug)]
pub(crate) struct Running(ProgressBar);

impl Running {
    /// So much is done.
    pub(crate) fn advance(&self, done: u64, total: u64) {
        self.0.set_length(total.max(done).max(1)); // nothing of nothing would be shown as all
        self.0.set_position(done);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Colour is for terminals, and only for people who did not ask for none (no-color.org).
fn colour(terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !refused && !dumb
}
