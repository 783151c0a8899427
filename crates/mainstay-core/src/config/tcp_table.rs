//! The rows of the table that say how a dead peer is noticed.

use super::draft::Draft;
use super::duration::Unit;
use super::form::{Form, Time};
use super::parameters::{Applies, Parameter};
use super::target::KeepAlive;
use std::time::Duration;

pub(super) const KEEPALIVES: Parameter = Parameter {
    name: "keepalives",
    applies: Applies::Postgres,
    form: Form::Word {
        choices: &[
            ("1", |draft| change(draft, |tcp| tcp.enabled = true)),
            ("0", |draft| change(draft, |tcp| tcp.enabled = false)),
        ],
    },
    default: "1",
    environment: None,
    meaning: "whether the operating system probes a connection on which nothing passes",
    reason: "without it a peer that is gone is noticed after hours, or never",
};

pub(super) const KEEPALIVES_IDLE: Parameter = Parameter {
    name: "keepalives_idle",
    applies: Applies::Postgres,
    form: Form::Time(Time {
        zero: None,
        variable: Unit::Seconds,
        most_bare: None,
        example: "15s",
        set: |draft, time| change(draft, |tcp| tcp.idle = time),
    }),
    default: "15s",
    environment: None,
    meaning: "how long nothing may pass before the first probe; whole seconds",
    reason: "shorter than the minute after which the strictest firewalls forget a connection",
};

pub(super) const KEEPALIVES_INTERVAL: Parameter = Parameter {
    name: "keepalives_interval",
    applies: Applies::Postgres,
    form: Form::Time(Time {
        zero: None,
        variable: Unit::Seconds,
        most_bare: None,
        example: "5s",
        set: |draft, time| change(draft, |tcp| tcp.interval = time),
    }),
    default: "5s",
    environment: None,
    meaning: "how long an answer to a probe is waited for before the next; whole seconds",
    reason: "longer than any round trip",
};

pub(super) const KEEPALIVES_COUNT: Parameter = Parameter {
    name: "keepalives_count",
    applies: Applies::Postgres,
    form: Form::Count {
        least: 1,
        most: 100,
        example: "3",
        set: |draft, count| change(draft, |tcp| tcp.count = count),
    },
    default: "3",
    environment: None,
    meaning: "how many probes may stay unanswered before the connection counts as lost",
    reason: "one lost packet is no dead peer, three in a row are: 30 seconds in all",
};

pub(super) const USER_TIMEOUT: Parameter = Parameter {
    name: "tcp_user_timeout",
    applies: Applies::Postgres,
    form: Form::Time(Time {
        zero: Some("the system's own, about a quarter of an hour"),
        variable: Unit::Seconds,
        most_bare: Some(Duration::from_secs(999)),
        example: "20s",
        set: |draft, time| {
            change(draft, |tcp| {
                tcp.user_timeout = Some(time).filter(|time| !time.is_zero());
            });
        },
    }),
    default: "20s",
    environment: None,
    meaning: "how long what was sent may stay unacknowledged, where the system can say so (Linux); \
        a bare number above 999 in the URL is refused because libpq's setting counts milliseconds",
    reason: "no probes are sent while data wait for their acknowledgement; this bounds that case",
};

fn change(draft: &mut Draft, set: impl FnOnce(&mut KeepAlive)) {
    draft.on_postgres(|target| set(&mut target.keep_alive));
}
