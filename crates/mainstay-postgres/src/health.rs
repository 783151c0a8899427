//! What the server tells about itself.

use crate::flight::Leg;
use crate::session::{Flight, Link};
use mainstay_core::backend::{Info, TableInfo};
use mainstay_core::{Deadline, Result};
use std::sync::Arc;
use tokio_postgres::Row;

/// Version, sessions, limits and size in one row.
const SERVER: &str = "
select pg_catalog.current_setting('server_version'),
    (select count(*) from pg_catalog.pg_stat_activity
        where datname = pg_catalog.current_database()),
    pg_catalog.current_setting('max_connections')::bigint,
    pg_catalog.pg_database_size(pg_catalog.current_database())";

/// Rows by table: counted by the statistics collector, or where that has seen nothing yet, as the
/// planner estimates. A table outside of the search path is named with its schema.
const TABLES: &str = "
select case when pg_catalog.pg_table_is_visible(c.oid) then c.relname::text
        else n.nspname || '.' || c.relname end as name,
    greatest(coalesce(s.n_live_tup, 0), c.reltuples::bigint, 0)
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
        let flight = Flight::start(self);
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
            info.active_connections = count(self.column(leg, row, 1)?);
            info.max_connections = Some(count(self.column(leg, row, 2)?));
            info.size_bytes = count(self.column(leg, row, 3)?);
        }
        for row in &tables {
            let name: String = self.column(leg, row, 0)?;
            let rows = count(self.column(leg, row, 1)?);
            info.tables.push(TableInfo::new(name).with_rows(rows));
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

/// The server counts in signed numbers; none of these is ever negative.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
