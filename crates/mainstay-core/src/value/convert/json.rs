//! JSON documents as parameters.

use crate::params::IntoValue;
use crate::{Result, Value};

impl IntoValue for serde_json::Value {
    fn into_value(self) -> Result<Value> {
        Ok(Value::Json(self.to_string()))
    }
}
