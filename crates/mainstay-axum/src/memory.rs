//! How much memory the process uses, as the kernel counts it.

use serde::Serialize;

/// The process's memory in bytes; `null` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// What lies in memory now.
    rss: Option<u64>,
    /// The most that ever lay there.
    peak: Option<u64>,
    /// The address space that is in use.
    #[serde(rename = "virtual")]
    address_space: Option<u64>,
}

impl Memory {
    /// Reads `/proc/self/status`: a few microseconds, no disk.
    pub(crate) fn now() -> Self {
        std::fs::read_to_string("/proc/self/status")
            .map(|status| Self::read(&status))
            .unwrap_or_default()
    }

    fn read(status: &str) -> Self {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes = line.trim().strip_suffix("kB")?.trim();
            kibibytes.parse::<u64>().ok()?.checked_mul(1024)
        };
        Self {
            rss: bytes("VmRSS:"),
            peak: bytes("VmHWM:"),
            address_space: bytes("VmSize:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_and_what_is_missing_stays_unknown() {
        let memory =
            Memory::read("Name:\tshop\nVmSize:\t   20 kB\nVmRSS:\t    7 kB\nVmHWM: many\n");
        assert_eq!(memory.rss, Some(7 * 1024));
        assert_eq!(memory.address_space, Some(20 * 1024));
        assert_eq!(memory.peak, None);
    }
}
