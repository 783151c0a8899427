//! What errors of sqlx mean.
//!
//! sqlx does not say in which moment a connection was lost, so what was sent may have happened; only
//! what an operation says that changes nothing, or may be done twice, is repeated then.

use super::Classify;
use mainstay_core::{Class, Evidence};
use sqlx_core::Error;
use std::io;

impl Classify for Error {
    fn class(&self) -> Class {
        meaning(self).0
    }

    fn evidence(&self) -> Evidence {
        meaning(self).1
    }
}

fn meaning(error: &Error) -> (Class, Evidence) {
    match error {
        Error::Database(error) => match error.code().as_deref() {
            Some(code) => by_code(code),
            None => (Class::Permanent, Evidence::Answered),
        },
        Error::Io(error) => by_io(error.kind()),
        // Whoever talks nonsense is there; what it did, nobody knows.
        Error::Protocol(_) => (Class::OutcomeUnknown, Evidence::Answered),
        Error::WorkerCrashed => (Class::OutcomeUnknown, Evidence::Silent),
        // It has waited already: once more would put it at the end of the queue.
        Error::PoolTimedOut => (Class::NotSent, Evidence::Neither),
        Error::RowNotFound
        | Error::TypeNotFound { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnDecode { .. }
        | Error::Decode(_) => (Class::Permanent, Evidence::Answered),
        _ => (Class::Permanent, Evidence::Neither),
    }
}

/// Five characters are a SQLSTATE, a number is a result code of SQLite.
fn by_code(code: &str) -> (Class, Evidence) {
    match code.parse::<i32>() {
        Ok(number) if code.len() < 5 => by_sqlite_code(number),
        _ => mainstay_postgres::meaning(code),
    }
}

fn by_sqlite_code(code: i32) -> (Class, Evidence) {
    const BUSY: i32 = 5;
    const IO_ERROR: i32 = 10;
    match code & 0xff {
        BUSY => (Class::RolledBack, Evidence::Answered),
        // At COMMIT nobody knows, and which moment it was is not said.
        IO_ERROR => (Class::OutcomeUnknown, Evidence::Exhausted),
        _ => (Class::Permanent, Evidence::Answered),
    }
}

fn by_io(kind: io::ErrorKind) -> (Class, Evidence) {
    use io::ErrorKind as K;
    match kind {
        // Only connecting ends like this.
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::NotFound => {
            (Class::NotSent, Evidence::Silent)
        }
        // Our own machine is out of ports.
        K::AddrNotAvailable | K::AddrInUse => (Class::NotSent, Evidence::Neither),
        _ => (Class::OutcomeUnknown, Evidence::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RetryPolicy, retry, retry_find};
    use sqlx_core::error::{DatabaseError, ErrorKind};
    use std::borrow::Cow;
    use std::cell::Cell;

    #[derive(Debug)]
    struct Refused(&'static str);

    impl std::fmt::Display for Refused {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Refused {}

    impl DatabaseError for Refused {
        fn message(&self) -> &'static str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn refused(code: &'static str) -> Error {
        Error::Database(Box::new(Refused(code)))
    }

    #[test]
    fn each_error_means_what_may_be_done_next() {
        use Class::{NotSent, OutcomeUnknown, Permanent, RolledBack};
        use Evidence::{Answered, Exhausted, Neither, Silent};
        for (error, class, evidence) in [
            (refused("40001"), RolledBack, Answered),
            (refused("40P01"), RolledBack, Answered),
            (refused("55P03"), RolledBack, Answered),
            (refused("23505"), Permanent, Answered),
            (refused("42601"), Permanent, Answered),
            (refused("40003"), OutcomeUnknown, Answered),
            (refused("08006"), OutcomeUnknown, Silent),
            (refused("53300"), RolledBack, Exhausted),
            (refused("57P01"), RolledBack, Silent),
            (refused("57P02"), OutcomeUnknown, Silent),
            (refused("57014"), Permanent, Answered),
            (refused("5"), RolledBack, Answered),
            (refused("517"), RolledBack, Answered),
            (refused("2067"), Permanent, Answered),
            (refused("1034"), OutcomeUnknown, Exhausted),
            (
                Error::Io(io::ErrorKind::ConnectionRefused.into()),
                NotSent,
                Silent,
            ),
            (
                Error::Io(io::ErrorKind::ConnectionReset.into()),
                OutcomeUnknown,
                Silent,
            ),
            (
                Error::Io(io::ErrorKind::UnexpectedEof.into()),
                OutcomeUnknown,
                Silent,
            ),
            (Error::PoolTimedOut, NotSent, Neither),
            (Error::PoolClosed, Permanent, Neither),
            (Error::WorkerCrashed, OutcomeUnknown, Silent),
            (Error::RowNotFound, Permanent, Answered),
            (Error::Tls("no".into()), Permanent, Neither),
        ] {
            let meant = (Classify::class(&error), Classify::evidence(&error));
            assert_eq!(meant, (class, evidence), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sqlx_errors_are_repeated_by_the_same_policy() {
        let policy = RetryPolicy::default();
        let conflicts = retry(&policy, async |attempt| match attempt {
            1 => Err(refused("40001")),
            n => Ok(n),
        });
        assert_eq!(conflicts.await.unwrap(), 2);
        let runs = Cell::new(0);
        let lost = || {
            runs.set(runs.get() + 1);
            Error::Io(io::ErrorKind::ConnectionReset.into())
        };
        let write: Result<(), Error> = retry(&policy, async |_| Err(lost())).await;
        assert!(write.is_err());
        assert_eq!(runs.get(), 1, "it may have happened");
        let read: Result<Option<()>, Error> = retry_find(&policy, async |_| Err(lost())).await;
        assert!(read.is_err());
        assert_eq!(runs.get(), 1 + 3, "a lookup may be repeated");
    }
}
