//! The columns of a result, shared by all its rows.

use std::fmt;
use std::ops::Index;

/// One column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    name: String,
}

impl Column {
    /// A column with the name the statement gave it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The name, as the statement gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The columns of a result, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    columns: Vec<Column>,
    duplicate: Option<usize>,
}

impl Columns {
    /// Takes the columns in order and notes whether a name appears twice.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Self {
        let duplicate = (1..columns.len()).find(|&later| {
            columns[..later]
                .iter()
                .any(|column| column == &columns[later])
        });
        Self { columns, duplicate }
    }

    /// Columns that are known by name alone.
    pub fn from_names<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::new(names.into_iter().map(Column::new).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether the statement returns no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// First to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.columns.iter()
    }

    /// The position of the only column with this name; `None` if there is none or more than one.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        let mut found = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.name == name);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    }

    /// The name that appears twice, if one does. A row with such columns cannot be read by name.
    #[must_use]
    pub fn duplicate(&self) -> Option<&str> {
        self.duplicate.map(|index| self.columns[index].name())
    }
}

impl Index<usize> for Columns {
    type Output = Column;

    fn index(&self, index: usize) -> &Column {
        &self.columns[index]
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, column) in self.columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", column.name)?;
        }
        Ok(())
    }
}
