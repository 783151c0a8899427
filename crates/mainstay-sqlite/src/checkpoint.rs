//! Copying the log beside the writer.
//!
//! A thread with a handle of its own, woken by commits and never by a clock. It asks for checkpoints
//! that wait for nobody (`PASSIVE`, with no patience for locks): a `FULL` or `RESTART` one would hold
//! the write lock for as long as a reader stays. Its handle is opened when there is something to copy
//! for the first time, so a database that is written to now and then never has it.
//!
//! Two handles that write and checkpoint one file are what the WAL-reset bug needs, so there is no
//! such thread where the file has a single connection, which a library with that bug may have too.

use crate::classify::{Site, classify};
use crate::connect::{Handle, Opening};
use crate::log::Copied;
use mainstay_core::Result;
use rusqlite::InterruptHandle;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A thread that copies the log for as long as this lives.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    opening: Arc<Opening>,
    ending: Arc<Ending>,
    thread: Option<JoinHandle<()>>,
}

/// How the thread is told to end.
#[derive(Default)]
struct Ending {
    is_over: AtomicBool,
    /// Of the handle, once it is open.
    interrupt: Mutex<Option<InterruptHandle>>,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ending").field(&self.is_over).finish()
    }
}

impl Checkpointer {
    /// Starts the thread. Without one the writer copies by itself, as SQLite does.
    pub(crate) fn start(opening: &Opening) -> Option<Self> {
        let opening = Arc::new(opening.clone());
        let ending = Arc::<Ending>::default();
        let (theirs, over) = (Arc::clone(&opening), Arc::clone(&ending));
        let thread = std::thread::Builder::new()
            .name("sqlite-checkpointer".to_owned())
            .spawn(move || run(&theirs, &over));
        match thread {
            Ok(thread) => {
                opening.log.set_help(true);
                Some(Self {
                    opening,
                    ending,
                    thread: Some(thread),
                })
            }
            Err(error) => {
                tracing::warn!(%error, "the writer has to copy its log by itself: no thread");
                None
            }
        }
    }
}

impl Drop for Checkpointer {
    /// Ends the thread and waits for it, so that nothing of the database is open behind its back. It
    /// stops at the next page; if it has only just begun, it copies what closing the last handle
    /// would have copied in its place.
    fn drop(&mut self) {
        self.opening.log.set_help(false);
        self.ending.is_over.store(true, Ordering::SeqCst);
        self.opening.log.wake();
        let interrupt = self.ending.interrupt.lock();
        if let Some(interrupt) = &*interrupt.unwrap_or_else(PoisonError::into_inner) {
            interrupt.interrupt();
        }
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the thread that copies a SQLite log panicked");
        }
    }
}

fn run(opening: &Opening, ending: &Ending) {
    let mut handle = None;
    while let Some(round) = opening.log.wait(&ending.is_over) {
        let copied = copy(opening, ending, &mut handle);
        match copied {
            _ if ending.is_over.load(Ordering::SeqCst) => {}
            Ok(Some(copied)) => {
                opening.log.on_copied(round, copied);
                if opening.log.extent().is_held {
                    opening.readers.mind(&opening.log, opening.wal_limit);
                }
            }
            // Somebody else copies at this moment.
            Ok(None) => {}
            Err(error) => {
                // A new handle finds out whether things are better.
                handle = None;
                opening.log.on_failure(error);
            }
        }
    }
}

/// One checkpoint; nothing if another one is being made.
fn copy(opening: &Opening, ending: &Ending, handle: &mut Option<Handle>) -> Result<Option<Copied>> {
    let handle = match handle {
        Some(handle) => handle,
        None => {
            let opened = opening.open_beside().inspect_err(|_| {
                // Then the writer does it, as without a thread.
                opening.log.set_help(false);
            })?;
            let mut interrupt = ending
                .interrupt
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *interrupt = Some(opened.get_interrupt_handle());
            handle.insert(opened)
        }
    };
    let answer = handle
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
        .and_then(|mut checkpoint| {
            checkpoint.query_row([], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
        });
    let (is_busy, pages, copied) = answer.map_err(|error| classify(error, Site::default()))?;
    Ok((is_busy == 0).then(|| Copied::new(pages, copied)))
}
