//! Lists come in pages: a list without a bound is an outage that waits for its customer.

use crate::validate::Checks;
use mainstay_axum::Problem;
use serde::{Deserialize, Serialize};

const LIMIT: i64 = 20;
const LIMIT_MAX: i64 = 100;
/// An offset is counted off row by row.
const OFFSET_MAX: i64 = 100_000;

/// `?limit=…&offset=…`, as it came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageParams {
    limit: Option<i64>,
    offset: Option<i64>,
}

/// A page within bounds.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Page {
    pub(crate) limit: i64,
    pub(crate) offset: i64,
}

impl PageParams {
    pub(crate) fn page(&self) -> Result<Page, Problem> {
        let page = Page {
            limit: self.limit.unwrap_or(LIMIT),
            offset: self.offset.unwrap_or(0),
        };
        let mut checks = Checks::default();
        checks.range("limit", page.limit, 1..=LIMIT_MAX);
        checks.range("offset", page.offset, 0..=OFFSET_MAX);
        checks.done().map(|()| page)
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct List<T> {
    items: Vec<T>,
    limit: i64,
    offset: i64,
}

impl<T> List<T> {
    pub(crate) fn new(page: Page, items: Vec<T>) -> Self {
        Self {
            items,
            limit: page.limit,
            offset: page.offset,
        }
    }
}
