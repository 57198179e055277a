//! Actions on pods, servers and the links between them.

use std::fmt;

/// One action on a pod, a leader or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) kind: ActionKind,
    pub(super) target: Target,
}

/// Object of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The pod of a slot, or the way to it.
    Pod(usize),
    /// The pod that leads the first cluster when the fault is injected, and the same pod when it is repaired.
    Leader,
    /// A server of the ensemble.
    Server(usize),
}

/// Kind of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ActionKind {
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
    /// `/control/off` by an operator.
    Off,
    /// `/control/on` by an operator.
    On,
    /// `/control/kill` by an operator.
    Retire,
    /// `/control/restart` by an operator.
    Restart,
    /// `/control/cordon` by an operator; the sub-process keeps running.
    Cordon,
    /// `/control/uncordon` by an operator.
    Uncordon,
    /// `/control/step-down` by an operator.
    StepDown,
    /// `/control/pause` by an operator.
    Pause,
    /// `/control/resume` by an operator.
    Resume,
    /// The plugin misbehaves in this callback, in this way.
    Misbehave(&'static str, &'static str),
    Behave,
    /// Connections are cut, new ones accepted.
    Cut(Link),
    /// Connections are cut, new ones rejected.
    Refuse(Link),
    /// A black hole: nothing passes.
    Swallow(Link),
    Heal(Link),
}

/// Link on which a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    ToStore,
    FromLeader,
}

impl ActionKind {
    /// Returns the action that repairs it, if one follows later.
    pub(super) fn repair(self) -> Option<Self> {
        Some(match self {
            Self::Kill | Self::Leave => Self::Start,
            Self::Freeze => Self::Thaw,
            Self::Off => Self::On,
            Self::Cordon => Self::Uncordon,
            Self::Pause => Self::Resume,
            Self::Misbehave(..) => Self::Behave,
            Self::Refuse(link) | Self::Swallow(link) => Self::Heal(link),
            _ => return None,
        })
    }

    /// Returns whether it repairs a fault instead of being one.
    pub(super) fn is_repair(self) -> bool {
        matches!(
            self,
            Self::Start | Self::Thaw | Self::On | Self::Uncordon | Self::Resume | Self::Behave | Self::Heal(_)
        )
    }
}

impl Action {
    /// Returns the kind of fault.
    pub(super) fn label(self) -> String {
        let target = match self.target {
            Target::Pod(_) => "pod",
            Target::Leader => "leader",
            Target::Server(_) => "server",
        };
        format!("{target}: {}", self.kind)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Pod(slot) => write!(f, "pod {slot}: {}", self.kind),
            Target::Leader => write!(f, "leader: {}", self.kind),
            Target::Server(server) => write!(f, "server {server}: {}", self.kind),
        }
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |way: &Link| match way {
            Link::ToStore => "connections to ZooKeeper",
            Link::FromLeader => "connections from the leader",
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
            Self::Restart => f.write_str("/control/restart"),
            Self::Cordon => f.write_str("/control/cordon"),
            Self::Uncordon => f.write_str("/control/uncordon"),
            Self::StepDown => f.write_str("/control/step-down"),
            Self::Pause => f.write_str("/control/pause"),
            Self::Resume => f.write_str("/control/resume"),
            Self::Misbehave(callback, how) => write!(f, "{callback} does {how:?}"),
            Self::Behave => f.write_str("callbacks behave"),
            Self::Cut(of) => write!(f, "{} cut", way(of)),
            Self::Refuse(of) => write!(f, "{} refused", way(of)),
            Self::Swallow(of) => write!(f, "{} swallowed", way(of)),
            Self::Heal(of) => write!(f, "{} healed", way(of)),
        }
    }
}
