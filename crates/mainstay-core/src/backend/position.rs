//! How far a server has come.

/// A place in the log of a server: everything written before it is there. Positions of one database can
/// be compared, whichever of its servers told them. The default is the beginning.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// A position, as the backend counts it.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// As the backend counts it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// How many calls have ended that may have written.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// All of them.
    pub ended: u64,
    /// Up to the last one whose outcome is known.
    pub decided: u64,
}
