//! The memory limit of the control group that this process is in, as Linux tells it in files.
//! A container's limit is such a limit, and so is one of systemd.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// The least limit of the process's control group and of those above it, in bytes; `None` where
/// nothing limits it. Version 2 of control groups and version 1 are looked at.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    least_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least limit along the paths that `groups` has, below where control groups are mounted.
///
/// Example: of the line `0::/system.slice/windrow.service`, the files `memory.max` of the root, of
/// `system.slice` and of `windrow.service` are read.
fn least_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
        let (root, file) = match controllers {
            Some("") => (mounted.to_owned(), "memory.max"),
            Some(names) if names.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        along(&root, path.unwrap_or_default())
            .iter()
            .filter_map(|group| limit_in(&group.join(file)))
            .collect()
    });
    limits.min()
}

/// The folders of a group and of all groups above it. In a container the path may be that of the
/// host, which is not there; then the container's own group is the root.
fn along(root: &Path, path: &str) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned()];
    let mut at = root.to_owned();
    for name in path
        .split('/')
        .filter(|name| !name.is_empty() && *name != "..")
    {
        at.push(name);
        folders.push(at.clone());
    }
    folders
}

fn limit_in(file: &Path) -> Option<u64> {
    // No limit is `max` in version 2, and a number close to 2^63 in version 1.
    let limit: u64 = read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    #[test]
    fn the_least_limit_along_the_path_counts_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "a/memory.max", "1000\n");
        write(root, "a/b/memory.max", "max\n");
        assert_eq!(least_limit("0::/a/b\n", root), Some(1000));
        assert_eq!(least_limit("0::/\n", root), None);
        assert_eq!(least_limit("0::/not/there\n", root), None);
        write(
            root,
            "memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        write(root, "memory/c/memory.limit_in_bytes", "500\n");
        let both = "5:cpu,cpuacct:/\n4:memory:/c\n0::/a\n";
        assert_eq!(least_limit(both, root), Some(500));
        assert_eq!(least_limit("4:memory:/elsewhere\n", root), None);
    }
}
