//! What a program may do of what the host may: as whom it runs, and within which limits.
//!
//! The host resolves names; the launcher is told numbers, as one word of its command line, and does as told.

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

/// The resources that can be limited, by their names without `RLIMIT_`.
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

/// What a program starts with instead of what the host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// The host's user and groups when none.
    pub identity: Option<Identity>,
    /// Limits on resources; the others are the host's.
    pub limits: Vec<Limit>,
}

/// User and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// All groups, besides that one or with it.
    pub groups: Vec<u32>,
}

/// What the system knows of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user: u32,
    /// The user's group; none when the system does not know the user.
    pub group: Option<u32>,
    /// All of the user's groups.
    pub groups: Vec<u32>,
    /// The home directory; `/` when the system does not know the user.
    pub home: PathBuf,
}

impl Account {
    /// A user by name or number. None when the system does not know the name.
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

/// A group by name or number. None when the system does not know the name.
#[must_use]
pub fn group(text: &str) -> Option<u32> {
    number(text).or_else(|| Some(Group::from_name(text).ok()??.gid.as_raw()))
}

/// From here on only root can look into this process: other processes of its user, its own children above all, read neither
/// its memory nor the environment that it was started with. It leaves no core file either. Children that execute a program
/// are as any other.
///
/// # Errors
/// When the system refuses.
pub fn close_to_others() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// User and group that this process acts as.
#[must_use]
pub fn own_user_and_group() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// All ones means "leave it" to the system.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?.filter(|number| *number != u32::MAX)
}

/// A limit on a resource, in the units of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl Limit {
    /// The limit that `SOFT:HARD`, or one text for both, puts on a resource: numbers or `unlimited`.
    ///
    /// # Errors
    /// What was expected instead.
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
            _ => Err("SOFT or SOFT:HARD, numbers or unlimited, the first not above the second".to_owned()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = RESOURCES.iter().find(|(_, resource)| *resource == self.resource).map_or("", |(name, _)| *name);
        write!(f, "{name}={}:{}", self.soft, self.hard)
    }
}

impl Privileges {
    /// Puts the limits on this process.
    pub(super) fn limit(&self) -> Result<(), Errno> {
        self.limits.iter().try_for_each(|limit| setrlimit(limit.resource, limit.soft, limit.hard))
    }

    /// Makes this process that of the user, for good.
    pub(super) fn assume(&self) -> Result<(), Errno> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        unistd::setgroups(&groups)?;
        unistd::setgid(Gid::from_raw(identity.group))?;
        unistd::setuid(Uid::from_raw(identity.user))
    }
}

impl Privileges {
    /// For the launcher: `user:group:group,group… name=soft:hard …`, with `-` for the host's identity.
    pub(super) fn orders(&self) -> String {
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

    /// What [`Self::orders`] tells; none for any other text.
    pub(super) fn parse(orders: &str) -> Option<Self> {
        let mut words = orders.split(' ');
        let identity = match words.next()? {
            "-" => None,
            word => Some(identity(word)?),
        };
        let limits = words.map(|word| Limit::parse(word.split_once('=')?.0, word.split_once('=')?.1).ok());
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
    fn limits_are_read_with_the_names_of_prlimit() {
        for (value, shown) in [
            ("1024", "nofile=1024:1024"),
            ("0:4096", "nofile=0:4096"),
            ("7:unlimited", "nofile=7:18446744073709551615"),
            ("unlimited", "nofile=18446744073709551615:18446744073709551615"),
        ] {
            assert_eq!(Limit::parse("nofile", value).unwrap().to_string(), shown);
        }
        for bad in ["", ":", "1:", ":1", "2:1", "unlimited:1", "-1", "1k", "1:2:3", "+1", "18446744073709551616"] {
            assert!(Limit::parse("nofile", bad).is_err(), "{bad:?}");
        }
        assert!(Limit::parse("files", "1").unwrap_err().contains("nofile, nproc"));
    }

    #[test]
    fn the_launcher_reads_what_the_host_writes() {
        let limits = vec![Limit::parse("core", "0").unwrap(), Limit::parse("as", "1:unlimited").unwrap()];
        let identity = Identity { user: 1000, group: 100, groups: vec![100, 4] };
        let bare = Identity { groups: Vec::new(), ..identity.clone() };
        for identity in [None, Some(identity), Some(bare)] {
            for limits in [Vec::new(), limits.clone()] {
                let privileges = Privileges { identity: identity.clone(), limits };
                assert_eq!(Privileges::parse(&privileges.orders()), Some(privileges));
            }
        }
        for garbled in ["", "1", "1:2", "a:2:", "1:2:3,x", "- core", "- core=1:0", "- x=1:1"] {
            assert_eq!(Privileges::parse(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.user, root.group, Account::find("0")), (0, Some(0), Some(root.clone())));
        let stranger = Account { user: 54321, group: None, groups: Vec::new(), home: "/".into() };
        assert_eq!(Account::find("54321"), Some(stranger));
        for nobody in ["", "no such user", "4294967295", "99999999999"] {
            assert_eq!(Account::find(nobody), None, "{nobody:?}");
        }
        assert_eq!((group("root"), group("12"), group("no such group")), (Some(0), Some(12), None));
    }
}
