//! The question before destruction. Whoever types the database's name has read which one it is.

use crate::failure::{Failure, Result};
use crate::interrupt::interruptible;
use crate::output::Output;
use std::io::{BufRead, IsTerminal, Read};

/// The longest answer that is read.
const ANSWER_MAX: u64 = 4096;

/// Asks for the database's name, unless the answer was given beforehand with `--force`.
pub(crate) async fn confirm(name: &str, force: bool, output: &mut Output) -> Result<()> {
    if force {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("everything in \"{name}\" would be removed, and there is no terminal to ask"),
            "give --force if that is what you want",
        ));
    }
    output.ask(&format!(
        "Everything in the database \"{name}\" will be removed.\nType its name to confirm: "
    ));
    // Off the runtime's threads, so that Ctrl-C is heard while the answer is waited for.
    let reading = tokio::task::spawn_blocking(|| answer(&mut std::io::stdin().lock()));
    interruptible(async {
        match reading.await {
            Ok(Ok(answer)) if agrees(&answer, name) => Ok(()),
            _ => Err(Failure::declined()),
        }
    })
    .await
}

fn answer(input: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    input.take(ANSWER_MAX).read_line(&mut line)?;
    Ok(line)
}

/// Whether the answer is the name, the line's end left out.
fn agrees(answer: &str, name: &str) -> bool {
    answer.trim_end_matches(['\r', '\n']) == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_name_is_a_yes() {
        for yes in ["shop", "shop\n", "shop\r\n"] {
            assert!(agrees(yes, "shop"), "{yes:?}");
        }
        for no in [
            "", "\n", "y\n", "yes\n", "Shop\n", " shop\n", "shop \n", "shops\n",
        ] {
            assert!(!agrees(no, "shop"), "{no:?}");
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert_eq!(answer(&mut endless).unwrap().len(), 4096);
    }
}
