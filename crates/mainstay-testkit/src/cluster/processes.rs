//! Signals and process trees, through the shell and the process table: calling the system directly
//! would need unsafe code, and a test kit is no place for that.

use std::process::{Command, Stdio};

use super::{Error, Result};

/// Sends one signal (`STOP`, `INT`, …) to a process. The shell's own `kill` is used because
/// small images have no other.
pub(super) fn signal(name: &str, process: u32) -> Result<()> {
    let output = Command::new("sh")
        .args([
            "-c",
            r#"kill -s "$1" "$2""#,
            "sh",
            name,
            &process.to_string(),
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::during(format!("sending {name}")))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "sending {name} to {process}: {}",
        complaint.trim()
    )))
}

/// Sends one signal to the children of a process: the backends and workers of a postmaster. One
/// that ends meanwhile no longer counts.
pub(super) fn signal_children(name: &str, parent: u32) -> Result<()> {
    for child in children_of(parent)? {
        let sent = signal(name, child);
        if sent.is_err() && children_of(parent)?.contains(&child) {
            return sent;
        }
    }
    Ok(())
}

fn children_of(parent: u32) -> Result<Vec<u32>> {
    let table = process_table()?;
    Ok(table
        .into_iter()
        .filter(|(_, of)| *of == parent)
        .map(|(process, _)| process)
        .collect())
}

/// Pairs of process and parent, from /proc where there is one and from `ps` elsewhere.
fn process_table() -> Result<Vec<(u32, u32)>> {
    if let Ok(entries) = std::fs::read_dir("/proc") {
        let table: Vec<_> = entries
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
            .filter_map(|stat| parse_stat(&stat))
            .collect();
        if !table.is_empty() {
            return Ok(table);
        }
    }
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=", "-o", "ppid="])
        .output()
        .map_err(Error::during("listing processes with `ps`"))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(parse_ps)
        .collect())
}

/// `42 (a name) with spaces) S 1 …`: the name may hold anything, so the last bracket counts.
fn parse_stat(stat: &str) -> Option<(u32, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let process = before.split(' ').next()?.parse().ok()?;
    let parent = after.split_whitespace().nth(1)?.parse().ok()?;
    Some((process, parent))
}

fn parse_ps(line: &str) -> Option<(u32, u32)> {
    let mut columns = line.split_whitespace();
    Some((columns.next()?.parse().ok()?, columns.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_brackets_and_spaces() {
        assert_eq!(parse_stat("42 (post (gres) x) S 7 42 0"), Some((42, 7)));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_ps("  42     7"), Some((42, 7)));
        assert_eq!(parse_ps("PID PPID"), None);
    }

    #[test]
    fn a_child_is_found_under_its_parent() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let children = children_of(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(children.contains(&child.id()), "{children:?}");
    }
}
