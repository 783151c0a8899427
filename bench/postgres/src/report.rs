//! Latencies of one turn, and the middle of several turns.

use std::time::Duration;

/// What one turn of one peer showed.
#[derive(Clone, Debug)]
pub struct Turn {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub worst: f64,
    /// Client processor time for each call, in microseconds.
    pub cpu: f64,
    pub connections: usize,
}

impl Turn {
    /// Adds up the latencies (in microseconds) of all callers.
    pub fn of(mut latencies: Vec<u32>, took: Duration, cpu: Duration, connections: usize) -> Self {
        latencies.sort_unstable();
        let count = latencies.len();
        let at = |share: f64| {
            let index = ((count as f64 * share) as usize).min(count.saturating_sub(1));
            latencies
                .get(index)
                .map_or(f64::NAN, |&us| f64::from(us) / 1_000.0)
        };
        Self {
            per_second: count as f64 / took.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            worst: at(1.0),
            cpu: cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
            connections,
        }
    }
}

/// One peer with its turns, or why it is void.
pub struct Row {
    pub name: &'static str,
    pub turns: Vec<Turn>,
    pub void: Option<String>,
}

impl Row {
    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of).collect())
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints the rows; the first one is what the others are compared with.
pub fn print(title: &str, rows: &[Row]) {
    println!("### {title}\n");
    println!(
        "| | calls/s | of the first | p50 ms | p99 ms | worst ms | client CPU µs | connections |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let first = rows
        .first()
        .map_or(f64::NAN, |row| row.median(|turn| turn.per_second));
    for row in rows {
        let name = row.name;
        if let Some(reason) = &row.void {
            println!("| {name} | void: {reason} | | | | | | |");
            continue;
        }
        let speed = row.median(|turn| turn.per_second);
        println!(
            "| {name} | {speed:.0} | {:.2} | {:.3} | {:.3} | {:.1} | {:.1} | {} |",
            speed / first,
            row.median(|turn| turn.p50),
            row.median(|turn| turn.p99),
            row.median(|turn| turn.worst),
            row.median(|turn| turn.cpu),
            row.turns
                .iter()
                .map(|turn| turn.connections)
                .max()
                .unwrap_or(0),
        );
    }
    println!();
}

/// Processor time of this process so far.
pub fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    // In hundredths of a second, on every Linux that we know.
    Duration::from_millis(fields.iter().sum::<u64>() * 10)
}
