//! chrono's types as parameters.

use crate::params::{IntoValue, out_of_range};
use crate::{Date, DateTime, Result, TimeOfDay, Timestamp, Value};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike};

impl<Z: TimeZone> IntoValue for chrono::DateTime<Z> {
    fn into_value(self) -> Result<Value> {
        Timestamp::from_unix_micros(self.timestamp_micros())
            .map(Value::Timestamp)
            .map_err(out_of_range)
    }
}

impl IntoValue for NaiveDateTime {
    fn into_value(self) -> Result<Value> {
        DateTime::from_micros(self.and_utc().timestamp_micros())
            .map(Value::DateTime)
            .map_err(out_of_range)
    }
}

impl IntoValue for NaiveDate {
    fn into_value(self) -> Result<Value> {
        let days = self.to_epoch_days();
        Date::from_unix_days(days)
            .map(Value::Date)
            .map_err(out_of_range)
    }
}

impl IntoValue for NaiveTime {
    fn into_value(self) -> Result<Value> {
        let micros = i64::from(self.num_seconds_from_midnight()) * 1_000_000
            + i64::from(self.nanosecond().min(999_999_999)) / 1_000;
        TimeOfDay::from_micros(micros)
            .map(Value::Time)
            .map_err(out_of_range)
    }
}
