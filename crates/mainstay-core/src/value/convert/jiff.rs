//! jiff's types as parameters.

use crate::params::{IntoValue, out_of_range};
use crate::{Date, DateTime, Result, TimeOfDay, Timestamp, Value};

impl IntoValue for jiff::Timestamp {
    fn into_value(self) -> Result<Value> {
        Timestamp::from_unix_micros(self.as_microsecond())
            .map(Value::Timestamp)
            .map_err(out_of_range)
    }
}

impl IntoValue for jiff::Zoned {
    fn into_value(self) -> Result<Value> {
        self.timestamp().into_value()
    }
}

impl IntoValue for jiff::civil::DateTime {
    fn into_value(self) -> Result<Value> {
        self.to_string()
            .parse::<DateTime>()
            .map(Value::DateTime)
            .map_err(out_of_range)
    }
}

impl IntoValue for jiff::civil::Date {
    fn into_value(self) -> Result<Value> {
        self.to_string()
            .parse::<Date>()
            .map(Value::Date)
            .map_err(out_of_range)
    }
}

impl IntoValue for jiff::civil::Time {
    fn into_value(self) -> Result<Value> {
        self.to_string()
            .parse::<TimeOfDay>()
            .map(Value::Time)
            .map_err(out_of_range)
    }
}
