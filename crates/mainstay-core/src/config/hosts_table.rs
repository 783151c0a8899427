//! The parameters that say which of several servers is used for what.

use super::draft::Draft;
use super::duration::Unit;
use super::form::{Form, Time};
use super::parameters::{Applies, Parameter};
use super::{ReadFrom, SessionAttrs};

pub(super) const SESSION_ATTRS: Parameter = Parameter {
    name: "target_session_attrs",
    applies: Applies::Postgres,
    form: Form::Word {
        choices: &[
            ("any", |draft| want(draft, SessionAttrs::Any)),
            ("read-write", |draft| want(draft, SessionAttrs::ReadWrite)),
            ("read-only", |draft| want(draft, SessionAttrs::ReadOnly)),
            ("primary", |draft| want(draft, SessionAttrs::Primary)),
            ("standby", |draft| want(draft, SessionAttrs::Standby)),
            ("prefer-standby", |draft| {
                want(draft, SessionAttrs::PreferStandby)
            }),
        ],
    },
    default: "-",
    environment: None,
    meaning: "what a server must be to be connected to, in libpq's words; asked of each host \
            in turn, whenever a connection is opened",
    reason: "`any` for one host; `read-write` for several, so that writes find the primary",
};

pub(super) const READ_FROM: Parameter = Parameter {
    name: "read_from",
    applies: Applies::Postgres,
    form: Form::Word {
        choices: &[
            ("primary", |draft| read_from(draft, ReadFrom::Primary)),
            ("replica", |draft| read_from(draft, ReadFrom::Replica)),
        ],
    },
    default: "primary",
    environment: None,
    meaning: "where reads go when several hosts are given; with `replica`, to a standby that has \
            everything this handle has written before, else to the primary",
    reason: "a standby is behind the primary; whoever wants that says so",
};

pub(super) const MAX_REPLICA_LAG: Parameter = Parameter {
    name: "max_replica_lag",
    applies: Applies::Postgres,
    form: Form::Time(Time {
        zero: None,
        variable: Unit::Seconds,
        most_bare: None,
        example: "10s",
        set: |draft, lag| draft.on_postgres(|target| target.max_replica_lag = lag),
    }),
    default: "10s",
    environment: None,
    meaning: "how far behind the primary a standby may be that reads are sent to",
    reason: "a healthy one is milliseconds behind",
};

fn want(draft: &mut Draft, wanted: SessionAttrs) {
    draft.on_postgres(|target| target.session_attrs = Some(wanted));
}

fn read_from(draft: &mut Draft, from: ReadFrom) {
    draft.on_postgres(|target| target.read_from = from);
}
