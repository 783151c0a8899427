//! A gate that stops at the first failure costs a round for each mistake. Steps are all run, timed,
//! and summed up at the end.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The steps run so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    good: bool,
}

impl Steps {
    /// Runs one step under its name; `work` tells whether it went well.
    #[expect(
        clippy::disallowed_methods,
        reason = "no virtual time here, and no runtime"
    )]
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> bool) {
        println!("\n==> {name}");
        let start = std::time::Instant::now();
        let good = work();
        self.done.push(Step {
            name: name.to_owned(),
            took: start.elapsed(),
            good,
        });
    }

    /// Prints the summary; true if every step went well.
    pub(crate) fn finish(&self) -> bool {
        print!("\n{}", self.summary());
        self.good()
    }

    fn good(&self) -> bool {
        self.done.iter().all(|step| step.good)
    }

    fn summary(&self) -> String {
        let width = self
            .done
            .iter()
            .map(|step| step.name.len())
            .max()
            .unwrap_or(0);
        self.done
            .iter()
            .fold(String::new(), |mut text, Step { name, took, good }| {
                let mark = if *good { "ok    " } else { "FAILED" };
                writeln!(text, "{mark} {name:width$} {:6.1} s", took.as_secs_f64())
                    .expect("writing to a String does not fail");
                text
            })
    }
}

/// Shows a command, runs it in `directory` and tells whether it succeeded.
pub(crate) fn shown(directory: &Path, command: &[&str], environment: &[(&str, &str)]) -> bool {
    let Some((program, arguments)) = command.split_first() else {
        return false;
    };
    let settings: String = environment
        .iter()
        .map(|(name, value)| format!("{name}={value} "))
        .collect();
    println!("$ {settings}{}", command.join(" "));
    let mut process = Command::new(program);
    process
        .args(arguments)
        .current_dir(directory)
        .envs(environment.iter().copied());
    match process.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("{program} could not be run: {error}");
            false
        }
    }
}

/// Whether a command exists and succeeds; it prints nothing.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_and_the_rest_still_runs() {
        let mut steps = Steps::default();
        steps.run("first", || false);
        steps.run("second step", || true);
        assert!(!steps.good());
        let summary = steps.summary();
        assert!(summary.starts_with("FAILED first       "), "{summary}");
        assert!(summary.contains("\nok     second step "), "{summary}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_a_failure() {
        assert!(!shown(Path::new("."), &["no-such-program-anywhere"], &[]));
        assert!(!shown(Path::new("."), &[], &[]));
        assert!(!succeeds("no-such-program-anywhere", &[]));
    }
}
