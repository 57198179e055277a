//! What can be done to pods, servers and the ways between them.

use std::fmt;

/// One thing that is done. Pods go by the slot that they live in, servers by their place in the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Starts a pod in a slot that is empty.
    Start(usize),
    /// SIGKILL to a host.
    Kill(usize),
    /// SIGTERM to a host.
    Leave(usize),
    /// SIGSTOP to a host.
    Freeze(usize),
    Thaw(usize),
    /// SIGKILL to a sub-process.
    Crash(usize),
    /// `/reset`
    Reset(usize),
    /// `/control/off` by hand.
    Off(usize),
    On(usize),
    /// `/control/kill` by hand.
    Retire(usize),
    /// The plugin misbehaves in a callback.
    Misbehave(usize, &'static str, &'static str),
    Behave(usize),
    StopServer(usize),
    StartServer(usize),
    FreezeServer(usize),
    ThawServer(usize),
    /// The way of a pod to ZooKeeper, or that of its leader to it.
    Cut(Way, usize),
    Refuse(Way, usize),
    Swallow(Way, usize),
    Heal(Way, usize),
}

/// Where a proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToStore,
    FromLeader,
}

impl Act {
    /// What kind of fault it is; none when it mends one.
    pub(super) fn fault(self) -> Option<&'static str> {
        Some(match self {
            Self::Kill(_) => "pod killed",
            Self::Leave(_) => "pod asked to leave",
            Self::Freeze(_) => "pod frozen",
            Self::Crash(_) => "sub-process killed",
            Self::Reset(_) => "session reset by hand",
            Self::Off(_) => "sub-process off by hand",
            Self::Retire(_) => "pod ended by hand",
            Self::Misbehave(..) => "plugin misbehaves",
            Self::StopServer(_) => "server killed",
            Self::FreezeServer(_) => "server frozen",
            Self::Cut(Way::ToStore, _) => "connections to ZooKeeper cut",
            Self::Refuse(Way::ToStore, _) => "connections to ZooKeeper refused",
            Self::Swallow(Way::ToStore, _) => "packets to ZooKeeper lost",
            Self::Cut(Way::FromLeader, _) => "connections to a pod cut",
            Self::Refuse(Way::FromLeader, _) => "connections to a pod refused",
            Self::Swallow(Way::FromLeader, _) => "packets to a pod lost",
            Self::Start(_)
            | Self::Thaw(_)
            | Self::On(_)
            | Self::Behave(_)
            | Self::StartServer(_)
            | Self::ThawServer(_)
            | Self::Heal(..) => return None,
        })
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(slot) => write!(f, "start of pod {slot}"),
            Self::Kill(slot) => write!(f, "kill -9 of pod {slot}"),
            Self::Leave(slot) => write!(f, "SIGTERM to pod {slot}"),
            Self::Freeze(slot) => write!(f, "SIGSTOP to pod {slot}"),
            Self::Thaw(slot) => write!(f, "SIGCONT to pod {slot}"),
            Self::Crash(slot) => write!(f, "kill -9 of the sub-process of pod {slot}"),
            Self::Reset(slot) => write!(f, "/reset of pod {slot}"),
            Self::Off(slot) => write!(f, "/control/off of pod {slot}"),
            Self::On(slot) => write!(f, "/control/on of pod {slot}"),
            Self::Retire(slot) => write!(f, "/control/kill of pod {slot}"),
            Self::Misbehave(slot, callback, how) => write!(f, "pod {slot} is told {how:?} in {callback}"),
            Self::Behave(slot) => write!(f, "pod {slot} is told to behave"),
            Self::StopServer(server) => write!(f, "kill -9 of server {server}"),
            Self::StartServer(server) => write!(f, "start of server {server}"),
            Self::FreezeServer(server) => write!(f, "SIGSTOP to server {server}"),
            Self::ThawServer(server) => write!(f, "SIGCONT to server {server}"),
            Self::Cut(way, slot) => write!(f, "{} of pod {slot} is cut", way.name()),
            Self::Refuse(way, slot) => write!(f, "{} of pod {slot} is refused", way.name()),
            Self::Swallow(way, slot) => write!(f, "{} of pod {slot} is a black hole", way.name()),
            Self::Heal(way, slot) => write!(f, "{} of pod {slot} is healed", way.name()),
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::ToStore => "the way to ZooKeeper",
            Self::FromLeader => "the way from the leader",
        }
    }
}
