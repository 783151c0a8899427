//! `pgbench`, the server's own client, as the mark of what the server gives to separate requests.

use crate::effort::Effort;
use crate::report::Turn;
use crate::server::{ROWS, Server};
use crate::{Failure, LIMIT};
use std::time::Duration;

/// As many clients as there are callers, but no more than connections are allowed.
pub async fn turn(server: &Server, callers: usize, effort: &Effort) -> Result<Turn, Failure> {
    let directory = std::env::temp_dir().join(format!("mainstay-pgbench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let script = directory.join("select.sql");
    let text = format!(
        "\\set id random(1, {ROWS})\nselect id, name, balance from accounts where id = :id;\n"
    );
    std::fs::write(&script, text)?;
    let clients = callers.min(LIMIT);
    let seconds = effort.turn.as_secs().max(1);
    let output = tokio::process::Command::new(server.cluster.program("pgbench"))
        .args(["-n", "-M", "prepared", "-j", "2", "-f"])
        .arg(&script)
        .args(["-c", &clients.to_string(), "-T", &seconds.to_string()])
        .arg(server.url())
        .output()
        .await?;
    std::fs::remove_dir_all(&directory)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |prefix: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(prefix))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let missing = || String::from_utf8_lossy(&output.stderr).into_owned();
    let per_second = number("tps = ").ok_or_else(missing)?;
    let latency = number("latency average = ").ok_or_else(missing)?;
    // It tells averages only.
    let mut turn = Turn::of(Vec::new(), Duration::from_secs(1), Duration::ZERO, clients);
    (turn.per_second, turn.p50, turn.cpu) = (per_second, latency, f64::NAN);
    Ok(turn)
}
