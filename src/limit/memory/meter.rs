//! What the kernel says of the memory: that of the process, and that of the control groups that it is in.
//!
//! Counted is what cannot be had back without ending something: page cache is not, for the kernel drops it before it kills.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Levels of control groups that are looked at.
const LEVELS_MAX: usize = 32;

/// What one look has found, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// In use, of that which the limit counts.
    pub used: u64,
    /// The limit that is nearest; `None` where there is none.
    pub limit: Option<u64>,
}

/// Where to look.
#[derive(Debug)]
pub struct Meter {
    process: PathBuf,
    groups: Vec<Group>,
}

/// A control group with a memory controller.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Group {
    /// Of version 1.
    First(PathBuf),
    /// Of version 2.
    Second(PathBuf),
}

impl Reading {
    /// Which part of the limit is in use, in thousandths; 0 without a limit.
    #[must_use]
    pub fn thousandths(&self) -> u64 {
        let used = self.used.saturating_mul(1000);
        self.limit
            .and_then(|limit| used.checked_div(limit))
            .unwrap_or(0)
    }
}

impl Meter {
    /// Finds the groups of this process: its own and those above it.
    #[must_use]
    pub fn find() -> Self {
        Self::of(Path::new("/proc/self"), Path::new("/"))
    }

    /// As [`find`](Self::find), with the process's folder below `/proc`, and where mount points begin.
    pub(super) fn of(process: &Path, root: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let (member, mounts) = (read("cgroup"), read("mountinfo"));
        let mut groups = Vec::new();
        for mount in mounts.lines().filter_map(Mount::read) {
            let Some(path) = member.lines().find_map(|line| mount.path_of(line)) else {
                continue;
            };
            let point = root.join(mount.point.trim_start_matches('/'));
            // Where the mount shows a part of the tree, what is not in it cannot be seen: then it shows the group itself.
            let below = path.strip_prefix(mount.root).unwrap_or_default();
            let folder = point.join(below.trim_start_matches('/'));
            let levels = folder.ancestors().take(LEVELS_MAX);
            for level in levels.take_while(|level| level.starts_with(&point)) {
                groups.push(match mount.is_second {
                    true => Group::Second(level.to_owned()),
                    false => Group::First(level.to_owned()),
                });
            }
        }
        groups.retain(|group| group.used().is_some());
        Self {
            process: process.to_owned(),
            groups,
        }
    }

    /// Looks: of the configured limit and those of the groups, the one of which the largest part is in use.
    #[must_use]
    pub fn read(&self, configured: Option<u64>) -> Reading {
        let own = Reading {
            used: self.own().unwrap_or(0),
            limit: configured,
        };
        let groups = self.groups.iter().filter_map(Group::read);
        groups.fold(own, |nearest, next| {
            let is_nearer = next.thousandths() > nearest.thousandths();
            if nearest.limit.is_none() || is_nearer {
                next
            } else {
                nearest
            }
        })
    }

    /// The anonymous memory of the process.
    fn own(&self) -> Option<u64> {
        let status = fs::read_to_string(self.process.join("status")).ok()?;
        let kib: u64 = value(&status, "RssAnon:")?;
        kib.checked_mul(1024)
    }
}

/// A mount of a hierarchy that may control memory.
#[derive(Debug)]
struct Mount<'m> {
    root: &'m str,
    point: &'m str,
    is_second: bool,
}

impl<'m> Mount<'m> {
    /// Reads a line of `mountinfo` (proc_pid_mountinfo(5)).
    fn read(line: &'m str) -> Option<Self> {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut kind = kind.split(' ');
        let is_second = match kind.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let mut options = kind.nth(1).unwrap_or_default().split(',');
        (is_second || options.any(|option| option == "memory")).then_some(Self {
            root: if root == "/" { "" } else { root },
            point,
            is_second,
        })
    }

    /// The path in this hierarchy that a line of `cgroup` (cgroups(7)) tells.
    fn path_of(&self, line: &'m str) -> Option<&'m str> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_ours = match self.is_second {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|name| name == "memory"),
        };
        is_ours.then_some(path)
    }
}

impl Group {
    fn read(&self) -> Option<Reading> {
        let (folder, file) = match self {
            Self::First(folder) => (folder, "memory.limit_in_bytes"),
            Self::Second(folder) => (folder, "memory.max"),
        };
        // `max`, or the largest multiple of a page, means that there is none.
        let limit = number(&folder.join(file))?;
        let limit = Some(limit).filter(|limit| *limit > 0 && *limit < 1 << 62)?;
        Some(Reading {
            used: self.used()?,
            limit: Some(limit),
        })
    }

    /// What is in use and cannot be had back by dropping page cache.
    fn used(&self) -> Option<u64> {
        let (Self::First(folder) | Self::Second(folder)) = self;
        let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
        let of = |name: &str| value(&stat, name).unwrap_or(0);
        let sum = |names: &[&str]| names.iter().map(|name| of(name)).sum::<u64>();
        Some(match self {
            Self::First(_) => {
                let kernel = number(&folder.join("memory.kmem.usage_in_bytes")).unwrap_or(0);
                sum(&["total_rss", "total_shmem"]) + kernel
            }
            Self::Second(_) => {
                // Before Linux 5.18 there is no sum over the kernel's.
                let kernel = value(&stat, "kernel").map_or_else(
                    || sum(&["kernel_stack", "pagetables", "percpu", "slab_unreclaimable"]),
                    |kernel| kernel.saturating_sub(of("slab_reclaimable")),
                );
                sum(&["anon", "shmem", "sock"]) + kernel
            }
        })
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number beside a name.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}
