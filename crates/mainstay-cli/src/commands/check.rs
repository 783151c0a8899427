//! `check`: does the database answer, and who is it?

use super::open::with_existing;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Output, Page, Paint, Report, took};
use crate::plan::Plan;
use mainstay::{Health, Info, Status};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
struct Checked {
    healthy: bool,
    latency_ms: f64,
    version: String,
    active_connections: u64,
    server_connections: Option<u64>,
    max_connections: Option<u64>,
    pools: Vec<Pool>,
}

#[derive(Debug, Serialize)]
struct Pool {
    lane: &'static str,
    limit: usize,
    open: usize,
    idle: usize,
    leased: usize,
}

pub(super) async fn run(plan: &Plan, output: &mut Output) -> Result<Exit> {
    let report = with_existing(plan, async |db| {
        let health = db.health().await;
        if let Some(error) = health.error {
            return Err(Failure::from(error));
        }
        Ok(Checked::new(&health, db.info().await?, &db.status()))
    })
    .await?;
    output.report(&report);
    Ok(if report.healthy {
        Exit::Done
    } else {
        Exit::NotDone
    })
}

impl Checked {
    fn new(health: &Health, info: Info, status: &Status) -> Self {
        let pools = status.pools.iter().map(|pool| Pool {
            lane: pool.lane,
            limit: pool.limit,
            open: pool.open,
            idle: pool.idle,
            leased: pool.leased,
        });
        Self {
            healthy: health.healthy,
            latency_ms: health.latency.as_secs_f64() * 1000.0,
            version: info.version,
            active_connections: info.active_connections,
            server_connections: info.server_connections,
            max_connections: info.max_connections,
            pools: pools.collect(),
        }
    }
}

impl Report for Checked {
    fn show(&self, page: &mut Page) {
        let latency = Duration::try_from_secs_f64(self.latency_ms / 1000.0).unwrap_or_default();
        let (paint, word) = if self.healthy {
            (Paint::Good, "healthy")
        } else {
            (Paint::Bad, "not healthy")
        };
        page.field(
            "health",
            paint,
            &format!("{word}, answered in {}", took(latency)),
        );
        page.field("version", Paint::Plain, &self.version);
        page.field(
            "connections",
            Paint::Plain,
            &connections(
                self.server_connections.unwrap_or(self.active_connections),
                self.max_connections,
            ),
        );
        for Pool {
            lane,
            limit,
            open,
            idle,
            leased,
        } in &self.pools
        {
            let pool = format!("{lane}: {open} of {limit} open, {idle} idle, {leased} leased");
            page.field("pool", Paint::Plain, &pool);
        }
    }
}

/// `3 of 100`, or `3` where there is no limit.
pub(super) fn connections(active: u64, limit: Option<u64>) -> String {
    limit.map_or_else(
        || active.to_string(),
        |limit| format!("{active} of {limit}"),
    )
}
