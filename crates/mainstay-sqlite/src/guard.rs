//! Refusing what would change a session that somebody else uses next.
//!
//! Keywords are not enough: `/* */ begin` and a second statement in a script would slip through a
//! search of the text. SQLite itself says what a statement is going to do, while it prepares it, to
//! its authorizer. The authorizer listens only while a text of the caller's is being prepared:
//! SQLite's own inner statements (`vacuum` attaches a file and begins a transaction) are its own
//! business, and so are ours.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization, TransactionOperation};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is refused while a text is being prepared.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refuse {
    /// Nothing: exclusive use, or a statement of our own.
    Nothing = 0,
    /// Beginning, ending and nesting transactions: inside a transaction that we began, whose state
    /// is ours to keep.
    TransactionControl = 1,
    /// That, and `attach`, `detach` and `pragma`.
    SessionChanges = 2,
}

/// What the authorizer is told and what it has noticed.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    refuse: AtomicU8,
    refused: Mutex<Option<&'static str>>,
    made_temporary: AtomicBool,
}

impl Guard {
    /// Makes SQLite ask this guard.
    pub(crate) fn install(
        self: &Arc<Self>,
        connection: &mut rusqlite::Connection,
    ) -> rusqlite::Result<()> {
        let guard = Arc::clone(self);
        connection.authorizer(Some(move |context: AuthContext<'_>| guard.judge(&context)))
    }

    /// Prepares something under the guard's eyes. An error of kind "not authorized" is explained by
    /// [`take_refused`](Self::take_refused).
    pub(crate) fn watch<T>(&self, refuse: Refuse, prepare: impl FnOnce() -> T) -> T {
        self.refuse.store(refuse as u8, Ordering::Relaxed);
        let prepared = prepare();
        self.refuse.store(Refuse::Nothing as u8, Ordering::Relaxed);
        prepared
    }

    /// Stops listening, after a panic in the middle of a preparation.
    pub(crate) fn rest(&self) {
        self.refuse.store(Refuse::Nothing as u8, Ordering::Relaxed);
    }

    /// The keyword that was refused last.
    pub(crate) fn take_refused(&self) -> Option<&'static str> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether a temporary table, view or trigger was made since the last question.
    pub(crate) fn take_made_temporary(&self) -> bool {
        self.made_temporary.swap(false, Ordering::Relaxed)
    }

    fn judge(&self, context: &AuthContext<'_>) -> Authorization {
        let refuse = self.refuse.load(Ordering::Relaxed);
        if refuse == Refuse::Nothing as u8 {
            return Authorization::Allow;
        }
        if makes_temporary(context) {
            self.made_temporary.store(true, Ordering::Relaxed);
        }
        let Some((keyword, is_control)) = session_change(&context.action) else {
            return Authorization::Allow;
        };
        if !is_control && refuse != Refuse::SessionChanges as u8 {
            return Authorization::Allow;
        }
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(keyword);
        Authorization::Deny
    }
}

/// The keyword of an action that changes the session, and whether it controls transactions.
fn session_change(action: &AuthAction<'_>) -> Option<(&'static str, bool)> {
    use rusqlite::ffi;
    Some(match action {
        AuthAction::Transaction { operation } => match operation {
            TransactionOperation::Begin => ("begin", true),
            TransactionOperation::Rollback => ("rollback", true),
            _ => ("commit", true),
        },
        AuthAction::Savepoint { operation, .. } => match operation {
            TransactionOperation::Release => ("release", true),
            TransactionOperation::Rollback => ("rollback to", true),
            _ => ("savepoint", true),
        },
        AuthAction::Attach { .. } => ("attach", false),
        AuthAction::Detach { .. } => ("detach", false),
        AuthAction::Pragma { .. } => ("pragma", false),
        // A file name that is an expression is not told, and the action then has no other name.
        AuthAction::Unknown {
            code: ffi::SQLITE_ATTACH,
            ..
        } => ("attach", false),
        AuthAction::Unknown {
            code: ffi::SQLITE_DETACH,
            ..
        } => ("detach", false),
        AuthAction::Unknown {
            code: ffi::SQLITE_PRAGMA,
            ..
        } => ("pragma", false),
        AuthAction::Unknown {
            code: ffi::SQLITE_TRANSACTION,
            ..
        } => ("begin", true),
        AuthAction::Unknown {
            code: ffi::SQLITE_SAVEPOINT,
            ..
        } => ("savepoint", true),
        _ => return None,
    })
}

fn makes_temporary(context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempIndex { .. } => true,
        AuthAction::CreateVtable { .. } => context.database_name == Some("temp"),
        _ => false,
    }
}
