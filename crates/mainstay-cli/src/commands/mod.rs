//! What each command does: a plan comes in, a report goes out.

mod backup;
mod check;
mod deploy;
mod init;
mod open;
mod reset;
mod seed;
mod status;

use crate::exit::Exit;
use crate::failure::Result;
use crate::output::Output;
use crate::plan::{Plan, Task};

/// Carries a plan out.
pub(crate) async fn run(plan: &Plan, output: &mut Output) -> Result<Exit> {
    match &plan.task {
        Task::Check => check::run(plan, output).await,
        Task::Init => init::run(plan, output).await,
        Task::Status { exact } => status::run(plan, *exact, output).await,
        Task::Deploy => deploy::run(plan, output).await,
        Task::Reset { force, skip_seed } => reset::run(plan, *force, *skip_seed, output).await,
        Task::Seed { file } => seed::run(plan, file.as_deref(), output).await,
        Task::Backup { to, force } => backup::run(plan, to, *force, output).await,
    }
}
