//! Named columns and their values, decoded into Rust types by serde.
//!
//! The wanted type decides, not the column's declaration: an `i64` is read from any integer or
//! whole decimal, a `bool` from a boolean or from 0 and 1, a date from what either database stores.
//! What does not fit is an error that names the column; nothing is rounded, cut or guessed.

mod columns;
mod decode;
mod fields;
mod value;

pub use columns::{Column, Columns};
pub use fields::field_names;

use crate::error::Report;
use crate::{Error, Kind, Result, Value};
use decode::RowDeserializer;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// One row: values in the order of their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Arc<Columns>,
    values: Vec<Value>,
}

impl Row {
    /// Puts a row together. A backend gives as many values as there are columns; missing ones are
    /// null and surplus ones are dropped, so that a row is consistent whatever happens.
    #[must_use]
    pub fn new(columns: Arc<Columns>, mut values: Vec<Value>) -> Self {
        values.resize(columns.len(), Value::Null);
        Self { columns, values }
    }

    /// The columns, shared by all rows of a result.
    #[must_use]
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// The values, in the order of the columns.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Takes the values out.
    #[must_use]
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// The whole row as a struct (by column name), a tuple (by position), a map, a scalar (one
    /// column) or a `Row`.
    ///
    /// # Errors
    ///
    /// [`Kind::Decode`], naming the column, when the row does not fit the type.
    ///
    /// ```
    /// # use mainstay_core::{Columns, Row, Value};
    /// # use std::sync::Arc;
    /// #[derive(serde::Deserialize)]
    /// struct Order { id: i64, status: String }
    /// let columns = Arc::new(Columns::from_names(["status", "id"]));
    /// let row = Row::new(columns, vec![Value::Text("paid".into()), Value::Int(7)]);
    /// let order: Order = row.decode()?;
    /// assert_eq!((order.id, order.status.as_str()), (7, "paid"));
    /// # Ok::<(), mainstay_core::Error>(())
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(RowDeserializer::new(self)).map_err(Error::from)
    }

    /// One value, by column name.
    ///
    /// # Errors
    ///
    /// [`Kind::Decode`] when the column is missing, appears twice, or does not fit the type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        match self.columns.position(name) {
            Some(index) => self.at(index),
            None => Err(
                Report::new(Kind::Decode, format!("there is no single column {name:?}"))
                    .remedy(format!("the columns are: {}", self.columns))
                    .into(),
            ),
        }
    }

    /// One value, by position, counted from 0.
    ///
    /// # Errors
    ///
    /// [`Kind::Decode`] when there are fewer columns or the value does not fit the type.
    pub fn at<T: DeserializeOwned>(&self, index: usize) -> Result<T> {
        let Some(value) = self.values.get(index) else {
            let message = format!("there is no column {index}, only {}", self.values.len());
            return Err(Report::new(Kind::Decode, message).into());
        };
        let column = &self.columns[index];
        T::deserialize(value::ValueDeserializer(value))
            .map_err(|error| Error::from(error.in_column(column.name())))
    }
}

impl From<value::DecodeError> for Error {
    fn from(error: value::DecodeError) -> Self {
        Report::new(Kind::Decode, error.to_string()).into()
    }
}

#[cfg(test)]
mod tests;
