//! What can be done to pods, servers and the ways between them.

use std::fmt;

/// One thing that is done to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) deed: Deed,
    pub(super) whom: Whom,
}

/// Whom it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The pod of a slot, or the way to it.
    Pod(usize),
    /// The pod that leads the first cluster when the fault is made, and still that one when it is mended.
    Leader,
    /// A server of the ensemble.
    Server(usize),
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Starts a host, or a server.
    Start,
    /// SIGKILL
    Kill,
    /// SIGTERM
    Leave,
    /// SIGSTOP
    Freeze,
    /// SIGCONT
    Thaw,
    /// SIGKILL to a sub-process.
    Crash,
    /// `/reset`
    Reset,
    /// `/control/off` by hand.
    Off,
    /// `/control/on` by hand.
    On,
    /// `/control/kill` by hand.
    Retire,
    /// The plugin misbehaves in this callback, in this way.
    Misbehave(&'static str, &'static str),
    Behave,
    /// Connections are cut, new ones welcome.
    Cut(Way),
    /// Connections are cut, new ones refused.
    Refuse(Way),
    /// A black hole: nothing comes through.
    Swallow(Way),
    Heal(Way),
}

/// Where a proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToStore,
    FromLeader,
}

impl Deed {
    /// What mends it, when that is to come later.
    pub(super) fn mended_by(self) -> Option<Self> {
        Some(match self {
            Self::Kill | Self::Leave => Self::Start,
            Self::Freeze => Self::Thaw,
            Self::Off => Self::On,
            Self::Misbehave(..) => Self::Behave,
            Self::Refuse(way) | Self::Swallow(way) => Self::Heal(way),
            _ => return None,
        })
    }

    /// Whether it mends a fault instead of being one.
    pub(super) fn mends(self) -> bool {
        matches!(self, Self::Start | Self::Thaw | Self::On | Self::Behave | Self::Heal(_))
    }
}

impl Act {
    /// What kind of fault it is.
    pub(super) fn kind(self) -> String {
        let whom = match self.whom {
            Whom::Pod(_) => "pod",
            Whom::Leader => "leader",
            Whom::Server(_) => "server",
        };
        format!("{whom}: {}", self.deed)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whom {
            Whom::Pod(slot) => write!(f, "pod {slot}: {}", self.deed),
            Whom::Leader => write!(f, "leader: {}", self.deed),
            Whom::Server(server) => write!(f, "server {server}: {}", self.deed),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |way: &Way| match way {
            Way::ToStore => "connections to ZooKeeper",
            Way::FromLeader => "connections from the leader",
        };
        match self {
            Self::Start => f.write_str("start"),
            Self::Kill => f.write_str("kill -9"),
            Self::Leave => f.write_str("SIGTERM"),
            Self::Freeze => f.write_str("SIGSTOP"),
            Self::Thaw => f.write_str("SIGCONT"),
            Self::Crash => f.write_str("kill -9 of the sub-process"),
            Self::Reset => f.write_str("/reset"),
            Self::Off => f.write_str("/control/off"),
            Self::On => f.write_str("/control/on"),
            Self::Retire => f.write_str("/control/kill"),
            Self::Misbehave(callback, how) => write!(f, "{callback} does {how:?}"),
            Self::Behave => f.write_str("callbacks behave"),
            Self::Cut(of) => write!(f, "{} cut", way(of)),
            Self::Refuse(of) => write!(f, "{} refused", way(of)),
            Self::Swallow(of) => write!(f, "{} swallowed", way(of)),
            Self::Heal(of) => write!(f, "{} healed", way(of)),
        }
    }
}
