//! The lane on which the server itself refuses to write.
//!
//! Nobody can tell a read from a write by looking at the text, so the server is made to decide: a
//! session of the read lane runs with `default_transaction_read_only`, and whatever it refuses
//! (25006) belongs to the write lane. One kind of statement escapes that judge: a `select` whose
//! function catches the refusal and goes on would lose its write without a sound. So
//! [`Link::route`] asks the catalog, once for each text, whether such a function can be reached.
//!
//! Where a session cannot carry the setting (a single connection for both lanes, a transaction
//! pooler), a read travels as `BEGIN READ ONLY; …; COMMIT` in one flight, with the same promise.

use crate::classify::Phase;
use crate::flight::{Launched, Leg, launch};
use crate::run::DriverResult;
use crate::session::{Flight, Link};
use crate::sql::{self, Token};
use mainstay_core::backend::{Call, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Kind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::types::Type;

/// A text with more names than this is sent to the write lane, which is always right.
const NAMES_MAX: usize = 500;

/// From the read lane back to what the server itself says about writing.
const TO_THE_SERVERS_DEFAULT: &str = "SET default_transaction_read_only = DEFAULT";

/// What has to travel with a statement so that its lane is kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The session has the right setting already, or a transaction has its own.
    None,
    /// The session's setting changes first.
    Setting(Lane),
    /// The statement runs in a transaction that may not write.
    ReadTransaction,
}

impl Guard {
    /// Decides. A transaction keeps the access mode with which it began.
    pub(crate) fn choose(wanted: Lane, is_on: bool, in_transaction: bool, lanes: bool) -> Self {
        match wanted {
            _ if in_transaction => Self::None,
            Lane::Read if !lanes => Self::ReadTransaction,
            wanted if lanes && !is_on => Self::Setting(wanted),
            _ => Self::None,
        }
    }

    /// What is sent before the statement.
    pub(crate) fn before(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Setting(Lane::Read) => Some("SET default_transaction_read_only = on"),
            Self::Setting(Lane::Write) => Some(TO_THE_SERVERS_DEFAULT),
            Self::ReadTransaction => Some("BEGIN READ ONLY"),
        }
    }

    /// What is sent behind it.
    pub(crate) fn after(self) -> Option<&'static str> {
        (self == Self::ReadTransaction).then_some("COMMIT")
    }

    /// The error of a read whose guard failed while it went through itself.
    pub(crate) fn failed(guard: &Error) -> Error {
        let message = "a read ran without its guard against writing; whether it wrote is unknown";
        Report::new(Kind::OutcomeUnknown, message)
            .evidence(guard.evidence())
            .source(guard.clone())
            .into()
    }
}

/// Built-in functions with effects that a read-only transaction lets pass.
const EFFECTS: [&str; 22] = [
    // They change the session, which the next statement would feel.
    "set_config",
    "setseed",
    // They run SQL that is given as a string, which nobody has looked at.
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
    // They act on the server or on other sessions.
    "pg_notify",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_promote",
    "pg_logical_emit_message",
    "pg_import_system_collations",
    "gin_clean_pending_list",
    "pg_create_restore_point",
    "pg_drop_replication_slot",
    "loread",
    "lowrite",
];

/// The same, by how their names begin: locks that outlive the statement, large objects, other
/// servers, backups, statistics, replication.
const EFFECT_PREFIXES: [&str; 13] = [
    "pg_advisory_",
    "pg_try_advisory_",
    "lo_",
    "dblink",
    "pg_backup_",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_stat_reset",
    "pg_wal_replay_",
    "pg_replication_",
    "pg_logical_slot_",
    "brin_",
    "pg_create_",
];

/// Whether a function is reachable that may write unseen. The walk starts at everything that the
/// text names ($1: names, $2: operators) and follows what the catalog knows: rules of views and
/// policies of tables, the bodies of functions (recorded dependencies, and for bodies that are
/// text every user function and view whose name occurs in them), operators, and the casts and
/// checks of types. A name that means something else costs nothing but the choice of the lane.
const WRITES_UNSEEN: &str = "
with recursive reachable(class, id) as (
    select 'pg_proc'::regclass::oid, oid from pg_catalog.pg_proc
        where proname = any($1) and oid >= 16384
    union
    select 'pg_class'::regclass::oid, oid from pg_catalog.pg_class
        where relname = any($1) and oid >= 16384
    union
    select 'pg_operator'::regclass::oid, oid from pg_catalog.pg_operator
        where oprname = any($2) and oid >= 16384
    union
    select 'pg_type'::regclass::oid, oid from pg_catalog.pg_type
        where typname = any($1) and oid >= 16384
  union
    select step.class, step.id
    from reachable r
    cross join lateral (
        select d.refclassid, d.refobjid from pg_catalog.pg_depend d
            where d.classid = 'pg_rewrite'::regclass and d.objid in (
                select w.oid from pg_catalog.pg_rewrite w
                where r.class = 'pg_class'::regclass and w.ev_class = r.id)
        union all
        select d.refclassid, d.refobjid from pg_catalog.pg_depend d
            where d.classid = 'pg_policy'::regclass and d.objid in (
                select p.oid from pg_catalog.pg_policy p
                where r.class = 'pg_class'::regclass and p.polrelid = r.id)
        union all
        select d.refclassid, d.refobjid from pg_catalog.pg_depend d
            where d.classid = r.class and d.objid = r.id
                and r.class in ('pg_proc'::regclass, 'pg_operator'::regclass)
        union all
        select 'pg_proc'::regclass::oid, callee.oid
            from pg_catalog.pg_proc f, pg_catalog.pg_proc callee
            where r.class = 'pg_proc'::regclass and f.oid = r.id and callee.oid >= 16384
                and position(lower(callee.proname) in lower(f.prosrc)) > 0
        union all
        select 'pg_class'::regclass::oid, c.oid
            from pg_catalog.pg_proc f, pg_catalog.pg_class c
            where r.class = 'pg_proc'::regclass and f.oid = r.id and c.oid >= 16384
                and c.relkind in ('v', 'm', 'r', 'p')
                and position(lower(c.relname) in lower(f.prosrc)) > 0
        union all
        select 'pg_proc'::regclass::oid, c.castfunc from pg_catalog.pg_cast c
            where r.class = 'pg_type'::regclass and r.id in (c.castsource, c.casttarget)
        union all
        select d.refclassid, d.refobjid from pg_catalog.pg_depend d
            where d.classid = 'pg_constraint'::regclass and d.objid in (
                select k.oid from pg_catalog.pg_constraint k
                where r.class = 'pg_type'::regclass and k.contypid = r.id)
    ) as step(class, id)
    where step.id >= 16384
)
select exists (
    select from reachable r
    join pg_catalog.pg_proc p on r.class = 'pg_proc'::regclass and p.oid = r.id
    join pg_catalog.pg_language l on l.oid = p.prolang
    where p.provolatile = 'v'
        or (l.lanname not in ('sql', 'internal', 'c') and p.prosrc ~* 'exception')
)";

/// What a text names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    words: BTreeSet<String>,
    operators: BTreeSet<String>,
}

/// Collects what a text names, or nothing if looking it up would not help: too many names, one that
/// is not spelt out, or a built-in function with effects.
fn names(text: &str) -> Option<Names> {
    let mut names = Names::default();
    for token in sql::tokens(text) {
        match token {
            Token::Word { name, .. } => {
                let has_effect = EFFECTS.contains(&&*name)
                    || EFFECT_PREFIXES
                        .iter()
                        .any(|prefix| name.starts_with(prefix));
                if has_effect {
                    return None;
                }
                names.words.insert(name.into_owned());
            }
            Token::Operator(symbol) => {
                // `a<-b` is one run of characters and two operators.
                for start in 0..symbol.len() {
                    for end in start + 1..=symbol.len() {
                        names.operators.insert(symbol[start..end].to_owned());
                    }
                }
            }
            Token::Opaque => return None,
            _ => {}
        }
        if names.words.len() + names.operators.len() > NAMES_MAX {
            return None;
        }
    }
    Some(names)
}

impl Link {
    /// Changes the setting for a read while its statement is prepared, in the same flight. The read is not
    /// sent before the server has said that it cannot write. If the connection is lost meanwhile, nothing
    /// was sent; with the setting on its way beside the read, nobody would know whether it held.
    pub(crate) async fn turn_while<T, E>(
        &self,
        call: Call,
        preparing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let turning = self.turn_to_read(call.lane);
        let prepared = preparing.await?;
        self.turned(turning, call).await;
        Ok(prepared)
    }

    /// The same for a statement that is prepared: a round trip when a session changes from writes to
    /// reads, and nothing as long as it stays on its lane.
    pub(crate) async fn turn(&self, call: Call) {
        if call.lane == Lane::Read && !self.usage().is_on(Lane::Read) {
            // Rare, and large beside what follows it.
            Box::pin(self.turned(self.turn_to_read(call.lane), call)).await;
        }
    }

    async fn turned(&self, turning: Option<(Leg, Launched<'_, DriverResult<()>>)>, call: Call) {
        let Some((leg, turning)) = turning else {
            return;
        };
        match self.answer(leg, call.deadline, turning.landed()).await {
            Ok(()) => self.usage().settled_lane = Lane::Read,
            // It is sent once more with the read, and there its failure counts.
            Err(error) => tracing::debug!(%error, "a session did not change its lane at once"),
        }
    }

    fn turn_to_read(&self, lane: Lane) -> Option<(Leg, Launched<'_, DriverResult<()>>)> {
        let in_transaction = self.is_in_transaction();
        let mut usage = self.usage();
        let guard = Guard::choose(lane, usage.is_on(lane), in_transaction, self.style.lanes);
        let text = guard
            .before()
            .filter(|_| guard == Guard::Setting(Lane::Read))?;
        let leg = self.leg(Phase::Prepare);
        usage.lane = Lane::Read;
        Some((leg, launch(self.client.batch_execute(text))))
    }

    /// Asks the catalog where a text belongs that does not say so itself.
    pub(crate) async fn route(self: &Arc<Self>, text: &str, deadline: Deadline) -> Result<Lane> {
        // With the old meaning of backslashes, strings end elsewhere than we think.
        if self.log.parameter("standard_conforming_strings").as_deref() == Some("off") {
            return Ok(Lane::Write);
        }
        let Some(names) = names(text) else {
            return Ok(Lane::Write);
        };
        let words: Vec<String> = names.words.into_iter().collect();
        let operators: Vec<String> = names.operators.into_iter().collect();
        let flight = Flight::start_reading(self);
        let leg = self.leg(self.preparing());
        let request = async {
            let rows = self
                .client
                .query_typed(
                    WRITES_UNSEEN,
                    &[(&words, Type::TEXT_ARRAY), (&operators, Type::TEXT_ARRAY)],
                )
                .await?;
            rows.first()
                .map_or(Ok(true), |row| row.try_get::<_, bool>(0))
        };
        let writes = self.answer(leg, deadline, request).await;
        flight.land();
        Ok(if writes? { Lane::Write } else { Lane::Read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_chosen_by_what_is_there() {
        use Lane::{Read, Write};
        for (wanted, now, in_transaction, lanes, guard) in [
            (Read, Read, false, true, Guard::None),
            (Read, Write, false, true, Guard::Setting(Read)),
            (Write, Read, false, true, Guard::Setting(Write)),
            (Write, Write, false, true, Guard::None),
            (Read, Write, true, true, Guard::None),
            (Read, Write, false, false, Guard::ReadTransaction),
            (Write, Write, false, false, Guard::None),
            (Read, Write, true, false, Guard::None),
        ] {
            let is_on = wanted == now;
            assert_eq!(Guard::choose(wanted, is_on, in_transaction, lanes), guard);
        }
    }

    #[test]
    fn functions_with_effects_are_known_by_name() {
        for text in [
            "select set_config('a', 'b', false)",
            "select PG_ADVISORY_LOCK(1)",
            "select pg_catalog.pg_notify('a', 'b')",
            "select lo_unlink(1)",
            "select \"dblink_exec\"('x')",
            "select query_to_xml('select f()', true, true, '')",
            "select U&\"d\\0061ta\"()",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
        assert!(names("select 'pg_notify', a from t -- lo_unlink").is_some());
    }

    #[test]
    fn every_operator_within_a_run_is_looked_up() {
        let names = names("select a<-b").unwrap();
        assert!(
            ["<", "-", "<-"]
                .iter()
                .all(|&symbol| names.operators.contains(symbol))
        );
    }

    #[test]
    fn a_text_with_too_many_names_is_not_looked_up() {
        let text: String = (0..=NAMES_MAX)
            .map(|number| format!("a{number} "))
            .collect();
        assert_eq!(names(&text), None);
    }
}
