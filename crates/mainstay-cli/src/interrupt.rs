//! Being asked to stop. Dropping what runs rolls it back and leaves no half-written file, which the
//! signals' own way of ending a process does not.

#[cfg_attr(unix, path = "interrupt/unix.rs")]
#[cfg_attr(not(unix), path = "interrupt/other.rs")]
mod system;

pub(crate) use system::asked;
