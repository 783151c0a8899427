//! Where a file lies: whether a write-ahead log works there, and whether anything can be written.
//!
//! The log's index is memory that all processes share, and its order is kept by locks. A network
//! file system gives two machines two memories, and locks that are lost with a connection; SQLite
//! opens the file all the same, and one day it is corrupt. So such a place is refused before
//! anything is opened, unless the operator knows better (`network_file_system=allow`).

use mainstay_core::error::Report;
use mainstay_core::{Evidence, Kind, Result};
use std::path::Path;

/// What a place is worth.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A disk, or memory, of this machine.
    Firm,
    /// What is behind it cannot be told; it may be this machine's disk.
    Unclear(&'static str),
    /// Another machine's, or one that several machines share.
    Network(&'static str),
}

/// Tells by the number that Linux gives each kind of file system (`f_type` of `statfs`, in its
/// lower 32 bits).
pub(crate) const fn judge(number: u32) -> Ground {
    match number {
        0x0000_6969 => Ground::Network("NFS"),
        0x0000_517B | 0xFE53_4D42 | 0xFF53_4D42 => Ground::Network("SMB"),
        0x5346_414F | 0x6B41_4653 => Ground::Network("AFS"),
        0x7375_7245 => Ground::Network("Coda"),
        0x0000_564C => Ground::Network("NCP"),
        0x00C3_6400 => Ground::Network("Ceph"),
        0x0BD0_0BD0 => Ground::Network("Lustre"),
        0x4750_4653 => Ground::Network("GPFS"),
        0x0116_1970 => Ground::Network("GFS2"),
        0x7461_636F => Ground::Network("OCFS2"),
        // A virtual machine's share: the host's processes have memory of their own.
        0x786F_4256 => Ground::Network("VirtualBox shared folders"),
        // sshfs and s3fs, but also ntfs-3g and encrypted homes.
        0x6573_5546 => Ground::Unclear("FUSE"),
        // Windows' disks under WSL, but also everything inside gVisor.
        0x0102_1997 => Ground::Unclear("9P"),
        _ => Ground::Firm,
    }
}

/// Refuses a place where the log is not safe, and tells what cannot be told.
pub(crate) fn check(path: &Path, exists: bool, is_allowed: bool, shown: &str) -> Result<()> {
    if exists {
        warn_of_other_names(path, shown);
    }
    // Links are followed: what counts is where the file is.
    let place = match path.parent() {
        Some(directory) if !exists => directory,
        _ => path,
    };
    match ground(place) {
        Ground::Firm => {}
        Ground::Network(name) if !is_allowed => {
            let message = format!("{shown} lies on a network file system ({name})");
            return Err(Report::new(Kind::Config, message)
                .remedy(
                    "put it on a local disk; if only this machine uses it, and its memory maps and \
                     locks are known to hold, add network_file_system=allow",
                )
                .into());
        }
        Ground::Network(name) => {
            tracing::warn!(
                database = shown,
                file_system = name,
                "the database lies on a network file system, which the configuration allows"
            );
        }
        Ground::Unclear(name) => {
            tracing::info!(
                database = shown,
                file_system = name,
                "what is behind this file system cannot be told; a database must not lie on \
                 another machine's disk"
            );
        }
    }
    Ok(())
}

/// Says so where nothing can be written any more. A file system that has met an error is mounted
/// anew for reading only, and those who have a file open notice when they commit.
pub(crate) fn check_writable(path: &Path, shown: &str) -> Result<()> {
    let is_marked = std::fs::metadata(path).is_ok_and(|file| file.permissions().readonly());
    if is_marked || is_mounted_read_only(path) {
        let what = if is_marked { "" } else { "the disk of " };
        return Err(
            Report::new(Kind::ReadOnly, format!("{what}{shown} is read-only"))
                .evidence(Evidence::Exhausted)
                .remedy("make it writable; the system's log says why a disk was mounted read-only")
                .into(),
        );
    }
    Ok(())
}

/// Two names of one file have two logs, which know nothing of each other.
#[cfg(unix)]
fn warn_of_other_names(path: &Path, shown: &str) {
    use std::os::unix::fs::MetadataExt;
    let names = std::fs::metadata(path).map_or(1, |found| found.nlink());
    if names > 1 {
        tracing::warn!(
            database = shown,
            names,
            "the file has several names (hard links); opened by two of them it will be corrupted"
        );
    }
}

#[cfg(not(unix))]
fn warn_of_other_names(_: &Path, _: &str) {}

#[cfg(target_os = "linux")]
fn ground(place: &Path) -> Ground {
    // What cannot be asked now, SQLite will not open either, and it says why.
    rustix::fs::statfs(place).map_or(Ground::Firm, |found| {
        // Sign and width of the number differ between machines, its lower half does not.
        judge((found.f_type as u64 & 0xFFFF_FFFF) as u32)
    })
}

#[cfg(not(target_os = "linux"))]
fn ground(_: &Path) -> Ground {
    Ground::Firm
}

#[cfg(target_os = "linux")]
fn is_mounted_read_only(path: &Path) -> bool {
    use rustix::fs::StatVfsMountFlags;
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted_read_only(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers as `linux/magic.h` and the file systems' own headers have them.
    #[test]
    fn every_kind_of_file_system_is_judged_by_its_number() {
        for (number, judgement) in [
            (0xEF53, Ground::Firm),      // ext4
            (0x9123_683E, Ground::Firm), // btrfs
            (0x5846_5342, Ground::Firm), // xfs
            (0x2FC1_2FC1, Ground::Firm), // zfs
            (0xF2F5_2010, Ground::Firm), // f2fs
            (0x0102_1994, Ground::Firm), // tmpfs
            (0x794C_7630, Ground::Firm), // overlayfs
            (0x5346_544E, Ground::Firm), // ntfs
            (0x0000_6969, Ground::Network("NFS")),
            (0x0000_517B, Ground::Network("SMB")),
            (0xFE53_4D42, Ground::Network("SMB")), // SMB 2
            (0xFF53_4D42, Ground::Network("SMB")), // CIFS
            (0x5346_414F, Ground::Network("AFS")),
            (0x6B41_4653, Ground::Network("AFS")),
            (0x7375_7245, Ground::Network("Coda")),
            (0x0000_564C, Ground::Network("NCP")),
            (0x00C3_6400, Ground::Network("Ceph")),
            (0x0BD0_0BD0, Ground::Network("Lustre")),
            (0x4750_4653, Ground::Network("GPFS")),
            (0x0116_1970, Ground::Network("GFS2")),
            (0x7461_636F, Ground::Network("OCFS2")),
            (0x786F_4256, Ground::Network("VirtualBox shared folders")),
            (0x6573_5546, Ground::Unclear("FUSE")),
            (0x0102_1997, Ground::Unclear("9P")),
        ] {
            assert_eq!(judge(number), judgement, "{number:#x}");
        }
    }

    #[test]
    fn a_place_of_this_machine_is_not_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new.db");
        check(&file, false, false, "file:new.db").unwrap();
        std::fs::write(&file, "").unwrap();
        check(&file, true, false, "file:new.db").unwrap();
        check_writable(&file, "file:new.db").unwrap();
    }
}
