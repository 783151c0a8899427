//! The rows of the table that only SQLite has.

use super::Durability;
use super::duration::Unit;
use super::form::{Form, Time};
use super::parameters::{Applies, Parameter};
use std::time::Duration;

pub(super) const DURABILITY: Parameter = Parameter {
    name: "durability",
    applies: Applies::Sqlite,
    form: Form::Word {
        choices: &[
            ("full", |draft| {
                draft.on_sqlite(|target| target.durability = Durability::Full)
            }),
            ("relaxed", |draft| {
                draft.on_sqlite(|target| target.durability = Durability::Relaxed);
            }),
        ],
    },
    default: "full",
    environment: None,
    meaning: "what a commit survives: `full` a power cut, `relaxed` a crash of the process",
    reason: "an acknowledged write must not be lost, and commits in groups make it cheap",
};

pub(super) const BUSY_TIMEOUT: Parameter = Parameter {
    name: "busy_timeout",
    applies: Applies::Sqlite,
    form: Form::Time(Time {
        zero: Some("fail at once"),
        variable: Unit::Seconds,
        most_bare: Some(Duration::from_secs(999)),
        example: "5s",
        set: |draft, time| draft.on_sqlite(|target| target.busy_timeout = time),
    }),
    default: "5s",
    environment: None,
    meaning: "how long SQLite waits for a lock of another process; a bare number above 999 is \
        refused because SQLite's own setting counts milliseconds",
    reason: "only other processes can make us wait: inside one, callers queue for the writer",
};

pub(super) const WRITE_PROBE: Parameter = Parameter {
    name: "write_probe",
    applies: Applies::Sqlite,
    form: Form::Flag {
        set: |draft, probe| draft.on_sqlite(|target| target.write_probe = probe),
    },
    default: "false",
    environment: Some("DB_WRITE_PROBE"),
    meaning: "whether a health check also takes the write lock and gives it back",
    reason: "behind a long write of another process a service that only reads would be \
        called ill",
};

pub(super) const NETWORK_FILE_SYSTEM: Parameter = Parameter {
    name: "network_file_system",
    applies: Applies::Sqlite,
    form: Form::Word {
        choices: &[
            ("refuse", |draft| {
                draft.on_sqlite(|target| target.network_file_system = false)
            }),
            ("allow", |draft| {
                draft.on_sqlite(|target| target.network_file_system = true)
            }),
        ],
    },
    default: "refuse",
    environment: None,
    meaning: "whether the file may lie on a network file system (told on Linux)",
    reason: "the write-ahead log needs memory that all processes share, and locks that hold; \
        without them the file is corrupted in silence",
};

pub(super) const WAL_LIMIT_MIB: Parameter = Parameter {
    name: "wal_limit_mib",
    applies: Applies::Sqlite,
    form: Form::Count {
        least: 0,
        most: 1024 * 1024,
        example: "1024",
        set: |draft, limit| {
            let bytes = u64::from(limit) * 1024 * 1024;
            draft.on_sqlite(|target| target.wal_limit = (bytes > 0).then_some(bytes));
        },
    },
    default: "0",
    environment: Some("DB_WAL_LIMIT_MIB"),
    meaning: "from how many MiB of the write-ahead log on the oldest read is ended that keeps it \
        from being emptied; 0 = never",
    reason: "how long a read may last is the application's affair; that the log grows is told in \
        any case",
};

pub(super) const TEMP: Parameter = Parameter {
    name: "temp",
    applies: Applies::Sqlite,
    form: Form::Flag {
        set: |draft, temp| draft.is_temporary = temp,
    },
    default: "false",
    environment: None,
    meaning: "a file of its own in the directory for temporary files, removed when the last \
        connection is closed and never synced: `file:?temp`, for tests that need what \
        `:memory:` cannot do",
    reason: "what is stored is meant to stay",
};
