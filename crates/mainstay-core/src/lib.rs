//! The common language of mainstay.
//!
//! Two databases, one application: the same statement text, the same parameters, the same rows and
//! the same errors, whichever backend serves them. This crate holds those words and nothing that
//! acts on them. It knows no driver, opens no socket and spawns no task; the backends speak it, and
//! the facade (`mainstay`) is written in it.
//!
//! Modules, in reading order:
//!
//! * [`value`]: what may be bound and what may come back ([`Value`], [`Timestamp`], [`Decimal`] …)
//! * [`params`](mod@params): how parameters are given ([`IntoValue`], [`IntoParams`], [`params!`])
//! * [`statement`]: text plus parameters, cheap to clone ([`Statement`])
//! * [`row`]: named columns and their values, decoded by serde ([`Row`])
//! * [`error`]: one opaque [`Error`] with a [`Kind`], a class and the evidence it carries
//! * [`config`]: URL, environment and builder, in one typed [`Config`]
//! * [`token`]: the row by which a transaction can be asked for after its COMMIT was lost
//! * [`backend`]: the seam that a backend fills ([`backend::Backend`], [`backend::Connection`])

pub mod backend;
pub mod config;
pub mod error;
pub mod params;
pub mod row;
pub mod statement;
pub mod token;
pub mod value;

pub use config::Config;
pub use error::{Error, Kind, Result};
pub use mainstay_resilience::{Class, Deadline, Evidence};
pub use params::{IntoParams, IntoValue, Params};
pub use row::{Column, Columns, Row};
pub use statement::Statement;
pub use value::{Date, DateTime, Decimal, TimeOfDay, Timestamp, Uuid, Value};
