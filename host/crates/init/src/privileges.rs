//! User and resource limits of programs.
//!
//! The host resolves names; the launcher gets numbers, as one argument, and applies them.

use std::{ffi::CString, fmt, io, path::PathBuf};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{RLIM_INFINITY, Resource, setrlimit},
    },
    unistd::{self, Gid, Group, Uid, User},
};

const UNLIMITED: &str = "unlimited";

/// Resources that can be limited, by their names without `RLIMIT_`.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// User and resource limits of a program, where they differ from the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// User and groups; none means the host's.
    pub identity: Option<Identity>,
    /// Resource limits; the others are the host's.
    pub limits: Vec<ResourceLimit>,
}

/// User and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// UID.
    pub user: u32,
    /// GID.
    pub group: u32,
    /// Supplementary groups, with or without that one.
    pub groups: Vec<u32>,
}

/// User account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// UID.
    pub user: u32,
    /// Group of the user; none if the user is not in the database.
    pub group: Option<u32>,
    /// All groups of the user.
    pub groups: Vec<u32>,
    /// Home directory; `/` if the user is not in the database.
    pub home: PathBuf,
}

impl Account {
    /// Finds a user by name or number. Returns none if the name is unknown.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let number = number(text);
        let known = match number {
            Some(number) => User::from_uid(Uid::from_raw(number)),
            None => User::from_name(text),
        };
        let Some(known) = known.ok().flatten() else {
            return Some(Self { user: number?, group: None, groups: Vec::new(), home: "/".into() });
        };
        let groups = CString::new(known.name).ok().and_then(|name| unistd::getgrouplist(&name, known.gid).ok());
        let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect();
        Some(Self { user: known.uid.as_raw(), group: Some(known.gid.as_raw()), groups, home: known.dir })
    }
}

/// Finds a group by name or number. Returns none if the name is unknown.
#[must_use]
pub fn group(text: &str) -> Option<u32> {
    number(text).or_else(|| Some(Group::from_name(text).ok()??.gid.as_raw()))
}

/// Makes this process non-dumpable: from here on only root can read its memory and its initial environment, and it
/// leaves no core file. Its children are not affected once they execute a program.
///
/// # Errors
/// If the system rejects it.
pub fn disable_dumps() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Returns the effective user and group of this process.
#[must_use]
pub fn own_user_and_group() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// Parses an id. All ones means "unchanged" to the system, and is rejected.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?.filter(|number| *number != u32::MAX)
}

/// Resource limit, in the units of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl ResourceLimit {
    /// Parses `SOFT:HARD`, or one text for both, as the limit on a resource: numbers or `unlimited`.
    ///
    /// # Errors
    /// The expected value.
    pub fn parse(name: &str, value: &str) -> Result<Self, String> {
        let Some((_, resource)) = RESOURCES.into_iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = RESOURCES.iter().map(|(name, _)| *name).collect();
            return Err(format!("one of the resources {}", names.join(", ")));
        };
        let one = |text: &str| match text {
            UNLIMITED => Some(RLIM_INFINITY),
            _ => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
        };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        match (one(soft), one(hard)) {
            (Some(soft), Some(hard)) if soft <= hard => Ok(Self { resource, soft, hard }),
            _ => Err("SOFT or SOFT:HARD, integers or unlimited, SOFT <= HARD".to_owned()),
        }
    }
}

impl ResourceLimit {
    /// Creates a limit on open files.
    pub(super) fn descriptors(soft: u64, hard: u64) -> Self {
        Self { resource: Resource::RLIMIT_NOFILE, soft, hard }
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = RESOURCES.iter().find(|(_, resource)| *resource == self.resource).map_or("", |(name, _)| *name);
        write!(f, "{name}={}:{}", self.soft, self.hard)
    }
}

impl Privileges {
    /// Applies the limits to this process.
    pub(super) fn apply_limits(&self) -> Result<(), Errno> {
        self.limits.iter().try_for_each(|limit| setrlimit(limit.resource, limit.soft, limit.hard))
    }

    /// Changes the user and groups of this process permanently.
    pub(super) fn apply_identity(&self) -> Result<(), Errno> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        unistd::setgroups(&groups)?;
        unistd::setgid(Gid::from_raw(identity.group))?;
        unistd::setuid(Uid::from_raw(identity.user))
    }
}

impl Privileges {
    /// Returns whether a limit on processes has no effect, because the kernel exempts root. `user` is the host's.
    #[must_use]
    pub fn limits_processes_in_vain(&self, user: u32) -> bool {
        let user = self.identity.as_ref().map_or(user, |identity| identity.user);
        user == 0 && self.limits.iter().any(|limit| limit.resource == Resource::RLIMIT_NPROC)
    }

    /// Adds this limit, unless the resource has one.
    pub(super) fn or_limit(mut self, limit: Option<ResourceLimit>) -> Self {
        let new = limit.filter(|limit| self.limits.iter().all(|known| known.resource != limit.resource));
        self.limits.extend(new);
        self
    }

    /// Formats an argument of the launcher: `user:group:group,group… name=soft:hard …`, with `-` for the host's
    /// identity.
    pub(super) fn to_arg(&self) -> String {
        let identity = self.identity.as_ref().map_or_else(
            || "-".to_owned(),
            |identity| {
                let groups: Vec<String> = identity.groups.iter().map(ToString::to_string).collect();
                format!("{}:{}:{}", identity.user, identity.group, groups.join(","))
            },
        );
        let limits = self.limits.iter().map(ToString::to_string);
        std::iter::once(identity).chain(limits).collect::<Vec<_>>().join(" ")
    }

    /// Parses the text of [`Self::to_arg`]; returns none for any other text.
    pub(super) fn parse(argument: &str) -> Option<Self> {
        let mut words = argument.split(' ');
        let identity = match words.next()? {
            "-" => None,
            word => Some(identity(word)?),
        };
        let limits = words.map(|word| ResourceLimit::parse(word.split_once('=')?.0, word.split_once('=')?.1).ok());
        Some(Self { identity, limits: limits.collect::<Option<_>>()? })
    }
}

fn identity(word: &str) -> Option<Identity> {
    let mut parts = word.split(':');
    let (user, group) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let groups = parts.next()?.split(',').filter(|group| !group.is_empty());
    let groups = groups.map(|group| group.parse().ok()).collect::<Option<_>>()?;
    Some(Identity { user, group, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_parsed_with_the_names_of_prlimit() {
        for (value, shown) in [
            ("1024", "nofile=1024:1024"),
            ("0:4096", "nofile=0:4096"),
            ("7:unlimited", "nofile=7:18446744073709551615"),
            ("unlimited", "nofile=18446744073709551615:18446744073709551615"),
        ] {
            assert_eq!(ResourceLimit::parse("nofile", value).unwrap().to_string(), shown);
        }
        for bad in ["", ":", "1:", ":1", "2:1", "unlimited:1", "-1", "1k", "1:2:3", "+1", "18446744073709551616"] {
            assert!(ResourceLimit::parse("nofile", bad).is_err(), "{bad:?}");
        }
        assert!(ResourceLimit::parse("files", "1").unwrap_err().contains("nofile, nproc"));
    }

    #[test]
    fn launcher_parses_the_argument_of_the_host() {
        let limits =
            vec![ResourceLimit::parse("core", "0").unwrap(), ResourceLimit::parse("as", "1:unlimited").unwrap()];
        let identity = Identity { user: 1000, group: 100, groups: vec![100, 4] };
        let bare = Identity { groups: Vec::new(), ..identity.clone() };
        for identity in [None, Some(identity), Some(bare)] {
            for limits in [Vec::new(), limits.clone()] {
                let privileges = Privileges { identity: identity.clone(), limits };
                assert_eq!(Privileges::parse(&privileges.to_arg()), Some(privileges));
            }
        }
        for garbled in ["", "1", "1:2", "a:2:", "1:2:3,x", "- core", "- core=1:0", "- x=1:1"] {
            assert_eq!(Privileges::parse(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn limit_is_added_unless_the_resource_has_one() {
        let own = Privileges { identity: None, limits: vec![ResourceLimit::parse("nofile", "7").unwrap()] };
        let inherited = Some(ResourceLimit::descriptors(1024, 4096));
        assert_eq!(own.clone().or_limit(inherited), own);
        assert_eq!(Privileges::default().or_limit(inherited).to_arg(), "- nofile=1024:4096");
        assert_eq!(Privileges::default().or_limit(None), Privileges::default());
    }

    #[test]
    fn limit_on_processes_of_root_has_no_effect() {
        let limited = |identity: Option<u32>, name: &str| {
            let identity = identity.map(|user| Identity { user, group: 1, groups: Vec::new() });
            Privileges { identity, limits: vec![ResourceLimit::parse(name, "7").unwrap()] }
        };
        for (identity, name, host, vain) in [
            (None, "nproc", 0, true),
            (None, "nproc", 1000, false),
            (Some(0), "nproc", 0, true),
            (Some(1000), "nproc", 0, false),
            (None, "nofile", 0, false),
        ] {
            assert_eq!(limited(identity, name).limits_processes_in_vain(host), vain, "{identity:?} {name} {host}");
        }
    }

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.user, root.group, Account::find("0")), (0, Some(0), Some(root.clone())));
        let stranger = Account { user: 54321, group: None, groups: Vec::new(), home: "/".into() };
        assert_eq!(Account::find("54321"), Some(stranger));
        for unknown in ["", "no such user", "4294967295", "99999999999"] {
            assert_eq!(Account::find(unknown), None, "{unknown:?}");
        }
        assert_eq!((group("root"), group("12"), group("no such group")), (Some(0), Some(12), None));
    }
}
