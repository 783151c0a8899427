//! What the server tells about itself.

use crate::flight::Leg;
use crate::session::{Flight, Link};
use mainstay_core::backend::{ApplicationInfo, Info, SessionCounts, TableInfo};
use mainstay_core::{Deadline, Result};
use std::sync::Arc;
use tokio_postgres::Row;

/// Version, limits, size and sessions in one row. Background workers need no connection of anybody, so
/// only clients are counted.
const SERVER: &str = "
with sessions as (
    select datname = pg_catalog.current_database() as here,
        datname = pg_catalog.current_database()
            and application_name = pg_catalog.current_setting('application_name') as ours,
        case when state in ('active', 'fastpath function call') then 1 when state = 'idle' then 2
            when state like 'idle in transaction%' then 3 else 4 end as doing
    from pg_catalog.pg_stat_activity where backend_type = 'client backend')
select pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('max_connections')::bigint,
    pg_catalog.pg_database_size(pg_catalog.current_database()),
    pg_catalog.current_setting('application_name'), count(*),
    array[count(*) filter (where here and doing = 1), count(*) filter (where here and doing = 2),
        count(*) filter (where here and doing = 3), count(*) filter (where here and doing = 4)],
    array[count(*) filter (where ours and doing = 1), count(*) filter (where ours and doing = 2),
        count(*) filter (where ours and doing = 3), count(*) filter (where ours and doing = 4)]
from sessions";

/// Tables: their rows as the statistics collector counts them, or where that has seen nothing yet, as the
/// planner estimates, and their size with indexes. Measuring takes a lock, so a table that somebody has
/// locked against everybody is not measured instead of being waited for. A table outside of the search
/// path is named with its schema.
const TABLES: &str = "
select case when pg_catalog.pg_table_is_visible(c.oid) then c.relname::text
        else n.nspname || '.' || c.relname end as name,
    greatest(coalesce(s.n_live_tup, 0), c.reltuples::bigint, 0),
    case when c.relkind = 'r' and not exists (select from pg_catalog.pg_locks l
            where l.relation = c.oid and l.mode = 'AccessExclusiveLock')
        then pg_catalog.pg_total_relation_size(c.oid) end,
    pg_catalog.format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_stat_user_tables s on s.relid = c.oid
where c.relkind in ('r', 'p')
    and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%'
    and n.nspname not like 'pg\\_temp%'
order by 1
limit 1000";

impl Link {
    /// Version, sizes, sessions.
    pub(crate) async fn info(self: &Arc<Self>, deadline: Deadline) -> Result<Info> {
        let flight = Flight::start_reading(self);
        let info = self.ask_for_info(deadline).await;
        flight.land();
        info
    }

    async fn ask_for_info(&self, deadline: Deadline) -> Result<Info> {
        let leg = self.leg(self.preparing());
        let server = self
            .answer(leg, deadline, self.client.query_typed(SERVER, &[]))
            .await?;
        let leg = self.leg(self.preparing());
        let tables = self
            .answer(leg, deadline, self.client.query_typed(TABLES, &[]))
            .await?;
        let mut info = Info::default();
        if let Some(row) = server.first() {
            info.version = self.column(leg, row, 0)?;
            info.in_recovery = Some(self.column(leg, row, 1)?);
            info.max_connections = Some(count(self.column(leg, row, 2)?));
            info.size_bytes = count(self.column(leg, row, 3)?);
            info.server_connections = Some(count(self.column(leg, row, 5)?));
            let here = sessions(&self.column::<Vec<i64>>(leg, row, 6)?);
            info.active_connections = here.total;
            info.sessions = Some(here);
            let name: String = self.column(leg, row, 4)?;
            let ours = sessions(&self.column::<Vec<i64>>(leg, row, 7)?);
            info.application = (!name.is_empty()).then(|| ApplicationInfo::new(name, ours));
        }
        for row in &tables {
            let name: String = self.column(leg, row, 0)?;
            let mut table = TableInfo::new(name).with_rows(count(self.column(leg, row, 1)?));
            table.size_bytes = self.column::<Option<i64>>(leg, row, 2)?.map(count);
            table.sql_name = Some(self.column(leg, row, 3)?);
            info.tables.push(table);
        }
        info.tables.sort();
        info.rows_are_estimates = true;
        Ok(info)
    }

    fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
        &self,
        leg: Leg,
        row: &'a Row,
        index: usize,
    ) -> Result<T> {
        row.try_get(index).map_err(|error| self.judge(leg, error))
    }
}

/// Active, idle, idle in a transaction, hidden.
fn sessions(counts: &[i64]) -> SessionCounts {
    let of = |index: usize| counts.get(index).copied().map_or(0, count);
    SessionCounts::new(of(0), of(1), of(2), of(3))
}

/// The server counts in signed numbers; none of these is ever negative.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
