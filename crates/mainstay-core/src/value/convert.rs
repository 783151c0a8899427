//! Conversions of foreign types, each behind the feature that names its crate.
//!
//! Rows need no conversion: they are decoded by serde, and these crates bring their own
//! `Deserialize`. What is here binds parameters.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "jiff")]
mod jiff;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "rust_decimal")]
mod rust_decimal;
#[cfg(feature = "time")]
mod time;
