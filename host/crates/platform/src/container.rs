//! Memory limit of the container, from its control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the lowest memory limit of the control groups of this process, in bytes; none if nothing limits it.
#[must_use]
pub(crate) fn memory_limit() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    lowest_limit(&read(Path::new("/proc/self/cgroup"))?, &read(Path::new("/proc/self/mountinfo"))?, read)
}

/// Reads the group of the process and all visible ancestors: a limit may be set on any of them. `groups` is
/// `/proc/self/cgroup`, `mounts` is `/proc/self/mountinfo`.
fn lowest_limit(groups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let hierarchies = mounts.lines().filter_map(Hierarchy::parse);
    let limits = hierarchies.flat_map(|hierarchy| hierarchy.limit_files(groups)).filter_map(|file| {
        // "max" and the huge number of version 1 mean no limit.
        read(&file)?.trim().parse().ok().filter(|bytes| *bytes < u64::MAX / 4)
    });
    limits.min()
}

/// Mounted hierarchy that may limit memory.
struct Hierarchy<'a> {
    is_v2: bool,
    /// The mounted group.
    root: &'a str,
    mount: &'a str,
}

impl<'a> Hierarchy<'a> {
    /// Reads a line of `mountinfo`: `36 35 0:30 /root /mount options… - type source superoptions`.
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_v2 = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.nth(1)?.split(',').any(|controller| controller == "memory") => false,
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        Some(Self { is_v2, root: mount.next()?, mount: mount.next()? })
    }

    /// Returns the files with the limits, from the group of the process upwards.
    fn limit_files(&self, groups: &str) -> Vec<PathBuf> {
        let name = if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        // `0::/path` is version 2, `4:memory:/path` version 1.
        let group = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let same = if self.is_v2 {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|controller| controller == "memory")
            };
            same.then_some(path)
        });
        // In a cgroup namespace, a group may be outside of the mounted one: then only the mounted group is known.
        let below = group.and_then(|group| Path::new(group).strip_prefix(self.root).ok());
        let below = below.filter(|below| !below.starts_with("..")).unwrap_or(Path::new(""));
        below.ancestors().map(|group| Path::new(self.mount).join(group).join(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "33 24 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      34 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
    const NONE_V1: &str = "9223372036854771712\n";

    fn limit(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        lowest_limit(groups, mounts, |path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn version_2_limits_apply_on_every_level() {
        let groups = "0::/kubepods/pod1/container\n";
        let files = [
            ("/sys/fs/cgroup/kubepods/pod1/container/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "8589934592\n"),
        ];
        assert_eq!(limit(groups, V2, &files), Some(256 << 20));
        assert_eq!(limit(groups, V2, &files[..1]), None);
    }

    #[test]
    fn container_group_may_be_the_root_of_the_hierarchy() {
        assert_eq!(limit("0::/\n", V2, &[("/sys/fs/cgroup/memory.max", "1000000\n")]), Some(1_000_000));
        let bound = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let files = [("/sys/fs/cgroup/memory.max", "2000000"), ("/sys/fs/cgroup/inner/memory.max", "1500000")];
        assert_eq!(limit("0::/docker/abc\n", bound, &files), Some(2_000_000));
        assert_eq!(limit("0::/docker/abc/inner\n", bound, &files), Some(1_500_000));
        assert_eq!(limit("0::/../other\n", V2, &files), Some(2_000_000));
    }

    #[test]
    fn version_1_limits_are_read_alongside_other_hierarchies() {
        let groups = "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/init\n";
        let files = [
            ("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "536870912\n"),
            ("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", NONE_V1),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", NONE_V1),
        ];
        assert_eq!(limit(groups, V1, &files), Some(512 << 20));
        assert_eq!(limit(groups, V1, &files[1..]), None);
    }

    #[test]
    fn missing_control_groups_mean_no_limit() {
        assert_eq!(limit("", "22 1 8:1 / / rw - ext4 /dev/sda1 rw", &[]), None);
        assert_eq!(limit("nonsense", "nonsense - cgroup2", &[]), None);
    }
}
