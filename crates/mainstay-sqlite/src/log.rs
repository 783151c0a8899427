//! The write-ahead log: how much is in it, how much of that is in the database already, and who has
//! to do something about it.
//!
//! A commit appends to the log. A checkpoint copies the log's pages into the database, and when all
//! of them are there and nobody reads the log any more, the next commit begins it anew. SQLite lets
//! the commit that fills a thousand pages copy them, while every other writer waits. Here a thread
//! beside the writer does it ([`checkpoint`](crate::checkpoint)), woken by commits, and the writer
//! only finishes: a writer that never pauses always has written something that was not copied yet,
//! and the log would never begin anew. So when the log is long the commit itself copies what is
//! left, which is little by then.
//!
//! A reader that stays for long keeps the log: what was written after it began may not be copied.
//! The log grows, nobody waits, and it is told ([`overgrown`]).

use crate::classify::{Site, classify};
use mainstay_core::Error;
use rusqlite::{Connection, ffi};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many pages are worth a visit of the disk: SQLite's own measure for its checkpoints.
const WORTH_COPYING: u32 = 1_000;
/// A log of so many pages is to begin anew: with pages of the usual size 8 MiB. Shorter, and the
/// writer would copy all of it; longer, and reads take longer to look through it, and a sync takes
/// longer while the file still grows than when old pages are written over (`bench/sqlite`).
const LONG: u32 = 2_000;
/// The writer finishes when no more than this is left: a few milliseconds of copying.
const EASILY_FINISHED: u32 = 2 * WORTH_COPYING;

/// What a commit has to do about the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// Wake the thread that copies.
    Wake,
    /// Copy what is left, so that the next commit can begin the log anew.
    Finish,
}

/// What is known of the log.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Pages that are in it.
    pub(crate) pages: u32,
    /// Those of them that are in the database as well.
    pub(crate) copied: u32,
    /// Whether somebody who reads an older state keeps the rest from being copied.
    pub(crate) is_held: bool,
}

#[derive(Debug, Default)]
struct State {
    extent: Extent,
    /// How often the log has begun anew: what was found out about one log says nothing of the next.
    round: u64,
    /// How many pages there were when the thread was last woken.
    woken_at: u32,
    /// Whether a thread is there to copy.
    has_help: bool,
    /// Whether the thread cannot keep up.
    is_behind: bool,
    /// Whether the thread is to copy.
    is_wanted: bool,
    /// Why the last checkpoint failed.
    failure: Option<Error>,
    /// How many bytes there were when their growth was last told.
    told: Option<u64>,
}

impl State {
    /// Takes note of a commit after which so many pages are in the log.
    fn committed(&mut self, pages: u32) -> Act {
        if pages < self.extent.pages {
            self.extent = Extent::default();
            self.round += 1;
            (self.woken_at, self.is_behind) = (0, false);
        }
        self.extent.pages = pages;
        let left = pages.saturating_sub(self.extent.copied);
        if left < WORTH_COPYING && pages < LONG {
            return Act::Nothing;
        }
        if !self.has_help {
            return Act::Finish;
        }
        let is_finish = left <= EASILY_FINISHED || self.is_behind;
        if pages >= LONG && !self.extent.is_held && is_finish {
            return Act::Finish;
        }
        if pages.saturating_sub(self.woken_at) < WORTH_COPYING {
            return Act::Nothing;
        }
        (self.woken_at, self.is_wanted) = (pages, true);
        Act::Wake
    }

    /// Takes note of a checkpoint of the thread's, begun in this round of the log.
    fn copied(&mut self, round: u64, copied: Copied) {
        self.failure = None;
        if round != self.round {
            return;
        }
        let before = copied.pages.saturating_sub(self.extent.copied);
        self.extent.copied = copied.copied.min(copied.pages);
        self.extent.pages = self.extent.pages.max(copied.pages);
        self.extent.is_held = copied.pages.saturating_sub(copied.copied) >= WORTH_COPYING;
        if !self.extent.is_held {
            self.told = None;
        }
        let left = self.extent.pages.saturating_sub(self.extent.copied);
        self.is_behind = !self.extent.is_held && left > before / 2;
    }
}

/// What a checkpoint found and did.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Copied {
    /// Pages that were in the log when it began.
    pub(crate) pages: u32,
    /// Pages that are in the database now.
    pub(crate) copied: u32,
}

impl Copied {
    /// As SQLite tells it; -1 where there is no log.
    pub(crate) fn new(pages: i64, copied: i64) -> Self {
        let number = |pages: i64| u32::try_from(pages).unwrap_or(0);
        Self {
            pages: number(pages),
            copied: number(copied),
        }
    }
}

/// The log of one database, shared by everybody who has to do with it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    state: Mutex<State>,
    changed: Condvar,
    /// [`Extent::is_held`] once more, for readers that end: they are many.
    is_held: AtomicBool,
    /// Bytes a page.
    page_size: AtomicU32,
}

/// What a page in the log has in front of it, and the log in front of its pages.
const FRAME_HEADER: u64 = 24;
const LOG_HEADER: u64 = 32;

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the log.
    pub(crate) fn extent(&self) -> Extent {
        self.state().extent
    }

    /// How many bytes of its file the log takes now.
    pub(crate) fn bytes(&self) -> u64 {
        match u64::from(self.extent().pages) {
            0 => 0,
            pages => {
                let frame = u64::from(self.page_size.load(Ordering::Relaxed)) + FRAME_HEADER;
                LOG_HEADER + pages * frame
            }
        }
    }

    /// How many bytes there were when their growth was last told.
    pub(crate) fn told(&self) -> Option<u64> {
        self.state().told
    }

    /// Takes note that the growth was told.
    pub(crate) fn set_told(&self, bytes: u64) {
        self.state().told = Some(bytes);
    }

    /// Why the last checkpoint failed, if it did.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.state().failure.clone()
    }

    /// A commit has left so many pages in the log; answers whether it has to copy them itself.
    fn on_commit(&self, pages: u32) -> bool {
        let mut state = self.state();
        let act = state.committed(pages);
        self.is_held.store(state.extent.is_held, Ordering::Relaxed);
        drop(state);
        if act == Act::Wake {
            self.changed.notify_all();
        }
        act == Act::Finish
    }

    /// Somebody who read has ended: if it was he who kept the log, the rest can be copied.
    pub(crate) fn on_reader_gone(&self) {
        if self.is_held.load(Ordering::Relaxed) {
            self.state().is_wanted = true;
            self.changed.notify_all();
        }
    }

    /// A thread is there to copy, or not any more.
    pub(crate) fn set_help(&self, has_help: bool) {
        self.state().has_help = has_help;
    }

    /// Waits until there is something to copy; answers the round of the log, or nothing when the
    /// thread has to end.
    pub(crate) fn wait(&self, is_over: &AtomicBool) -> Option<u64> {
        let mut state = self.state();
        loop {
            if is_over.load(Ordering::SeqCst) {
                return None;
            }
            if std::mem::take(&mut state.is_wanted) {
                return Some(state.round);
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a thread in [`wait`](Self::wait) see that it has to end.
    pub(crate) fn wake(&self) {
        // Whoever has looked and not yet begun to wait holds the lock.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Takes note of a checkpoint of the thread's.
    pub(crate) fn on_copied(&self, round: u64, copied: Copied) {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            tracing::info!(%failure, "the write-ahead log can be copied again");
        }
        state.copied(round, copied);
        self.is_held.store(state.extent.is_held, Ordering::Relaxed);
    }

    /// Takes note of a checkpoint of the writer's.
    fn on_finished(&self, code: c_int, copied: Copied) {
        match code & 0xff {
            ffi::SQLITE_OK => {
                let round = self.state().round;
                self.on_copied(round, copied);
            }
            // The thread beside is copying.
            ffi::SQLITE_BUSY => {}
            _ => {
                let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
                self.on_failure(classify(error, Site::default()));
            }
        }
    }

    /// Takes note of a checkpoint that failed. Nothing is lost by it: what was not copied stays in
    /// the log. But the log grows, so it is told, once until one succeeds.
    pub(crate) fn on_failure(&self, failure: Error) {
        let mut state = self.state();
        // Whether anybody keeps the log was not found out. It is tried again when so much more has
        // been written, not by every commit: each would copy for nothing what a full disk has no
        // room for.
        (state.extent.is_held, state.is_behind) = (false, false);
        self.is_held.store(false, Ordering::Relaxed);
        if state.failure.is_none() {
            tracing::warn!(
                error = %failure,
                "the write-ahead log could not be copied into the database; it grows until it can"
            );
        }
        state.failure = Some(failure);
    }
}

thread_local! {
    /// The log of the connection that this thread owns.
    static OWN: RefCell<Option<Arc<Log>>> = const { RefCell::new(None) };
}

/// Makes SQLite tell the log of every commit of this connection. To be called on the thread that
/// owns the connection. It takes the place of SQLite's own automatic checkpoints.
#[expect(
    unsafe_code,
    reason = "the wrapper differs between the supported versions of rusqlite"
)]
pub(crate) fn install(connection: &Connection, log: &Arc<Log>) -> rusqlite::Result<()> {
    let page_size = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    log.page_size.store(page_size, Ordering::Relaxed);
    OWN.set(Some(Arc::clone(log)));
    // SAFETY: the handle is that of an open connection, which is borrowed for as long as the call
    // takes, on the thread that owns it. The function stays for ever, and is given no data.
    unsafe {
        ffi::sqlite3_wal_hook(connection.handle(), Some(on_commit), std::ptr::null_mut());
    }
    Ok(())
}

/// SQLite calls this behind every commit that has left something in a log.
///
/// What it answers becomes the answer of the statement that committed, and a commit that has
/// happened has not failed: it always says so.
#[expect(unsafe_code, reason = "called by SQLite")]
unsafe extern "C" fn on_commit(
    _: *mut c_void,
    handle: *mut ffi::sqlite3,
    schema: *const c_char,
    pages: c_int,
) -> c_int {
    // SAFETY: SQLite gives the name of the schema, which ends with a NUL and stays there meanwhile.
    let is_main = unsafe { CStr::from_ptr(schema) } == c"main";
    let pages = u32::try_from(pages).unwrap_or(0);
    let log = OWN.with_borrow(Clone::clone).filter(|_| is_main);
    let finishes = match &log {
        Some(log) => log.on_commit(pages),
        // What somebody has attached is his own, and cared for as SQLite would.
        None => pages >= WORTH_COPYING,
    };
    if finishes {
        let (mut found, mut copied) = (0, 0);
        // SAFETY: the handle is that of the connection whose thread this is, SQLite allows a
        // checkpoint in this place, and the pointers lead to integers that outlive the call.
        let code = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                handle,
                schema,
                ffi::SQLITE_CHECKPOINT_PASSIVE,
                &raw mut found,
                &raw mut copied,
            )
        };
        if let Some(log) = log {
            log.on_finished(code, Copied::new(found.into(), copied.into()));
        }
    }
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_help() -> State {
        State {
            has_help: true,
            ..State::default()
        }
    }

    fn copied(pages: u32, copied: u32) -> Copied {
        Copied { pages, copied }
    }

    #[test]
    fn the_thread_is_woken_once_for_so_many_pages() {
        let mut log = with_help();
        assert_eq!(log.committed(WORTH_COPYING - 1), Act::Nothing);
        assert_eq!(log.committed(WORTH_COPYING), Act::Wake);
        assert_eq!(log.committed(WORTH_COPYING + 10), Act::Nothing);
        log.copied(0, copied(WORTH_COPYING, WORTH_COPYING));
        assert_eq!(log.committed(2 * WORTH_COPYING - 1), Act::Nothing);
    }

    #[test]
    fn without_a_thread_the_writer_copies_as_soon_as_sqlite_would() {
        let mut log = State::default();
        assert_eq!(log.committed(WORTH_COPYING - 1), Act::Nothing);
        assert_eq!(log.committed(WORTH_COPYING), Act::Finish);
    }

    #[test]
    fn the_writer_finishes_a_long_log_when_little_is_left() {
        let mut log = with_help();
        assert_eq!(log.committed(LONG - 1), Act::Wake);
        log.copied(0, copied(LONG - 1, LONG - 1));
        assert_eq!(log.committed(LONG), Act::Finish);
        // It could not begin anew, and so much has been written since that it is the thread's again.
        assert_eq!(log.committed(LONG + 2 * EASILY_FINISHED), Act::Wake);
    }

    #[test]
    fn the_writer_leaves_a_log_alone_that_a_reader_keeps() {
        let mut log = with_help();
        assert_eq!(log.committed(LONG - 1), Act::Wake);
        log.copied(0, copied(LONG, 10));
        assert!(log.extent.is_held);
        assert_eq!(log.committed(LONG + 1), Act::Nothing);
        assert_eq!(log.committed(LONG + WORTH_COPYING), Act::Wake);
        // A long log that was kept is copied by the thread, however much there is.
        log.copied(0, copied(LONG + WORTH_COPYING, LONG + WORTH_COPYING));
        assert_eq!(log.committed(LONG + WORTH_COPYING + 1), Act::Finish);
    }

    #[test]
    fn the_writer_helps_a_thread_that_cannot_keep_up() {
        let mut log = with_help();
        log.committed(LONG);
        log.committed(3 * LONG);
        log.copied(0, copied(LONG, LONG));
        assert!(log.is_behind, "more was written than was copied");
        assert_eq!(log.committed(3 * LONG + 1), Act::Finish);
    }

    #[test]
    fn what_was_found_out_about_one_log_says_nothing_of_the_next() {
        let mut log = with_help();
        log.committed(LONG);
        log.copied(0, copied(LONG, 10));
        log.committed(5);
        assert_eq!(
            log.extent,
            Extent {
                pages: 5,
                copied: 0,
                is_held: false
            }
        );
        log.copied(0, copied(LONG, LONG));
        assert_eq!(log.extent.copied, 0, "a checkpoint of the log before");
        assert_eq!(log.committed(WORTH_COPYING), Act::Wake);
    }

    #[test]
    fn a_thread_is_told_to_end_whether_it_waits_or_not() {
        let log = Log::default();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.wait(&is_over));
            is_over.store(true, Ordering::SeqCst);
            log.wake();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(log.wait(&is_over), None);
    }
}
