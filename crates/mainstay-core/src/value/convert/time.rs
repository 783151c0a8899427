//! The time crate's types as parameters.

use crate::params::{IntoValue, out_of_range};
use crate::{Date, DateTime, Result, TimeOfDay, Timestamp, Value};

fn micros(nanos: i128) -> i64 {
    // Whatever does not fit in 64 bits lies far outside the years 1 to 9999 and is refused as such.
    i64::try_from(nanos.div_euclid(1_000)).unwrap_or(i64::MAX)
}

impl IntoValue for time::OffsetDateTime {
    fn into_value(self) -> Result<Value> {
        Timestamp::from_unix_micros(micros(self.unix_timestamp_nanos()))
            .map(Value::Timestamp)
            .map_err(out_of_range)
    }
}

impl IntoValue for time::PrimitiveDateTime {
    fn into_value(self) -> Result<Value> {
        DateTime::from_micros(micros(self.assume_utc().unix_timestamp_nanos()))
            .map(Value::DateTime)
            .map_err(out_of_range)
    }
}

impl IntoValue for time::Date {
    fn into_value(self) -> Result<Value> {
        /// The Julian day of 1970-01-01.
        const UNIX_EPOCH: i32 = 2_440_588;
        Date::from_unix_days(self.to_julian_day() - UNIX_EPOCH)
            .map(Value::Date)
            .map_err(out_of_range)
    }
}

impl IntoValue for time::Time {
    fn into_value(self) -> Result<Value> {
        let (hour, minute, second, nano) = self.as_hms_nano();
        let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
        TimeOfDay::from_micros(seconds * 1_000_000 + i64::from(nano) / 1_000)
            .map(Value::Time)
            .map_err(out_of_range)
    }
}
