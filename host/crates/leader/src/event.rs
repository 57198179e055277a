//! Events and effects of the leader machine.

use std::{collections::BTreeSet, fmt, sync::Arc};

use ochopod_model::{Digest, PodId, StoredHash, View};
use ochopod_store::{Observation, States};
pub use ochopod_store::{StoreWrite, WriteResult};

/// A control task that a leader posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutTask {
    /// `check`: queries whether the pod can be configured.
    Check,
    /// `off`: stops the sub-process.
    Off,
    /// `on`: configures the pod and starts the sub-process.
    On,
    /// `ok`: confirms the configuration. Its reply is not awaited.
    Ok,
}

impl RolloutTask {
    /// Returns the name of the task in a request path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Off => "off",
            Self::On => "on",
            Self::Ok => "ok",
        }
    }
}

/// The reply of a pod, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerReply {
    /// A status code, and the text of the error if it is one.
    Status(u16, String),
    /// 503 of the callback `ready`: the pod runs as configured, and is not ready for this reason.
    NotReady(String),
    /// 410: the pod is cordoned for this reason.
    Cordoned(String),
    /// 409: the pod has accepted this number of this leadership, which is not below that of the request.
    Late(u64, String),
    /// Another pod answers at the address. The intended pod is shutting down, or registered a wrong address.
    WrongPod(String),
    /// No reply, and the cause.
    Unreachable(String),
}

impl fmt::Display for PeerReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code, text) if text.is_empty() => write!(f, "{code}"),
            Self::Status(code, text) => write!(f, "{code}: {text}"),
            Self::Cordoned(reason) => write!(f, "cordoned: {reason}"),
            Self::NotReady(reason) => write!(f, "not ready: {reason}"),
            Self::Late(number, text) => write!(f, "409: {text} (last accepted number {number})"),
            Self::WrongPod(text) => write!(f, "another pod: {text}"),
            Self::Unreachable(reason) => write!(f, "unreachable: {reason}"),
        }
    }
}

/// A request to one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRequest {
    /// Identifies the request until it is answered or cancelled.
    pub call: u64,
    /// The pod.
    pub pod: PodId,
    /// Address and port of its control API.
    pub address: String,
    /// The task.
    pub task: RolloutTask,
    /// The configuration it belongs to.
    pub generation: Digest,
    /// The view to send: one value for all pods of a phase.
    pub view: Arc<View>,
    /// Pods whose start was requested before, in the same configuration; empty except for `on`.
    pub started: Arc<BTreeSet<PodId>>,
}

/// Input of the leader machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The last configuration was read from the store: `hash` and `view`.
    Stored(StoredHash, View),
    /// The cluster or its dependencies changed, or were observed for the first time.
    Observation(Arc<Observation>),
    /// Whether the cluster may have changed since it was observed last: that is being read.
    Reading(bool),
    /// The published states of pods changed.
    States(Arc<States>),
    /// A pod replied to the request of this call, or did not.
    Answered(u64, PeerReply),
    /// A write finished.
    Written(WriteResult),
    /// The leader's lock was read: whether it is still held, or why that is unknown.
    LockRead(Result<bool, String>),
    /// The probe returned.
    Probed(Result<Option<String>, String>),
    /// The reconciliation returned.
    Reconciled(Result<(), String>),
    /// Time passed: `wake` is reached.
    Tick,
}

/// Output of the leader machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a request and report `Answered` (not for `ok`).
    Post(PeerRequest),
    /// Stop waiting for this request.
    Cancel(u64),
    /// Write and report `Written`. One at a time.
    Write(StoreWrite),
    /// Read the leader's lock and report `LockRead`. One at a time.
    ReadLock,
    /// Number later requests above this.
    CountAbove(u64),
    /// Run the probe of the plugin's model and report `Probed`.
    Probe(Arc<View>),
    /// Stop the probe; nothing is reported for it.
    CancelProbe,
    /// Run the reconciliation of the plugin's model and report `Reconciled`. Never while the probe runs.
    Reconcile(Arc<View>),
    /// Stop the reconciliation; nothing is reported for it.
    CancelReconcile,
    /// Resign the lock and contend again, because another pod leads. Always the last effect.
    Resign(String),
    /// A rollout ended, and whether it completed: for the metrics.
    RolloutEnded(bool),
}
