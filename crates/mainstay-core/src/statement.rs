//! SQL text plus its parameters.

use crate::params::{IntoParams, Params};
use crate::{Result, Value};
use std::sync::Arc;

/// SQL text plus its parameters: what travels to a connection, and what a retry sends again.
///
/// Cloning is cheap (two reference counts). `Debug` shows the text and the number of parameters,
/// never their values.
#[derive(Clone)]
pub struct Statement {
    text: Arc<str>,
    params: Params,
}

impl Statement {
    /// Text with parameters `$1`, `$2` … on both databases.
    ///
    /// # Errors
    ///
    /// A value that neither database can hold (NaN, a NUL in text, an integer above 2⁶³−1) is
    /// refused here, with its number.
    pub fn new(text: impl Into<Arc<str>>, params: impl IntoParams) -> Result<Self> {
        Ok(Self {
            text: text.into(),
            params: params.into_params()?,
        })
    }

    /// The SQL text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The parameters, first to last.
    #[must_use]
    pub fn params(&self) -> &[Value] {
        self.params.as_slice()
    }
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement")
            .field("text", &self.text)
            .field("params", &self.params.len())
            .finish()
    }
}
