//! `rust_decimal`'s numbers as parameters.

use crate::params::{IntoValue, out_of_range};
use crate::{Decimal, Result, Value};

impl IntoValue for rust_decimal::Decimal {
    fn into_value(self) -> Result<Value> {
        self.to_string()
            .parse::<Decimal>()
            .map(Value::Decimal)
            .map_err(out_of_range)
    }
}
