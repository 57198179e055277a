//! State of a pod that outlasts its sessions, and the nodes that follow from it: pure.

use ochopod_model::{ClusterName, DEAD, PodId};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    Mode, NodeAccess, Op,
    layout::{Layout, parse_registration},
};

/// Conditions under which a pod that is alive contends for the leader lock.
#[derive(Debug)]
struct Contention {
    /// Whether the pod stepped down for good.
    is_over: bool,
    /// Whether the pod contends if nothing else prevents it.
    is_wanted: bool,
    /// Time until which the pod lets others lead.
    yields_until: Option<Instant>,
}

/// Identity and wanted state of a pod, over all its sessions.
pub(crate) struct MemberState {
    pub(super) cluster: ClusterName,
    pub(super) layout: Layout,
    pub(super) id: PodId,
    registration: Map<String, Value>,
    pub(super) seq: Option<u64>,
    pub(super) after_loss: bool,
    pub(super) dead: bool,
    contention: Contention,
    /// Part of the name of the lock node, which is found by it if its creation was not confirmed.
    pub(super) token: String,
    /// Tokens of lock nodes to delete.
    pub(super) discarded: Vec<String>,
}

impl MemberState {
    pub(crate) fn new(cluster: ClusterName, id: PodId, registration: Map<String, Value>) -> Self {
        let layout = Layout::new(&cluster);
        let (seq, token, discarded) = (None, fresh_token(), Vec::new());
        Self {
            cluster,
            layout,
            id,
            registration,
            seq,
            after_loss: false,
            dead: false,
            contention: Contention { is_over: false, is_wanted: true, yields_until: None },
            token,
            discarded,
        }
    }

    pub(super) fn mark_dead(&mut self) {
        self.dead = true;
        self.rotate_lock_token();
    }

    pub(super) fn revive(&mut self) {
        self.dead = false;
    }

    pub(super) fn step_down(&mut self) {
        self.contention.is_over = true;
        self.rotate_lock_token();
    }

    /// Sets whether the pod contends. Returns whether that is a change.
    pub(super) fn set_contending(&mut self, contending: bool) -> bool {
        let changed = std::mem::replace(&mut self.contention.is_wanted, contending) != contending;
        if changed && !contending {
            self.rotate_lock_token();
        }
        changed
    }

    /// Lets others lead until this time, or until a later one that was set before.
    pub(super) fn yield_until(&mut self, until: Instant) {
        self.contention.yields_until = self.contention.yields_until.max(Some(until));
        self.rotate_lock_token();
    }

    pub(super) fn stop_yielding(&mut self) {
        self.contention.yields_until = None;
    }

    /// Returns whether the pod contends for the leader lock.
    pub(super) fn contends(&self, now: Instant) -> bool {
        let Contention { is_over, is_wanted, .. } = self.contention;
        !self.dead && !is_over && is_wanted && self.yields_until(now).is_none()
    }

    /// Returns the time from which a pod that yields no longer does.
    pub(super) fn yields_until(&self, now: Instant) -> Option<Instant> {
        self.contention.yields_until.filter(|until| now < *until)
    }

    /// Schedules the current lock node, if there is one, for deletion.
    pub(super) fn rotate_lock_token(&mut self) {
        self.discarded.push(std::mem::replace(&mut self.token, fresh_token()));
    }

    pub(super) fn payload(&self, seq: Option<u64>) -> Vec<u8> {
        let mut fields = self.registration.clone();
        if let Some(seq) = seq {
            fields.insert("seq".to_owned(), seq.into());
        }
        if self.dead {
            fields.insert("status".to_owned(), DEAD.into());
        }
        Value::Object(fields).to_string().into_bytes()
    }

    pub(super) fn create_op(&self, seq: Option<u64>) -> Op {
        let (path, data) = (self.layout.registration(&self.id), self.payload(seq));
        Op::Create { path, data, mode: Mode::EphemeralSequential, access: NodeAccess::Readable }
    }

    /// Returns the operations that delete nodes of earlier sessions.
    pub(super) fn cleanup_ops(&self, pods: &[String], locks: &[String]) -> Vec<Op> {
        let (pods_path, locks_path) = (self.layout.pods(), self.layout.coordinator());
        let own = |name: &&String| parse_registration(name).is_some_and(|(id, _)| id == self.id);
        let discarded = |name: &&String| self.discarded.iter().any(|token| name.starts_with(token));
        let registrations = pods.iter().filter(own).map(|name| format!("{pods_path}/{name}"));
        let locks = locks.iter().filter(discarded).map(|name| format!("{locks_path}/{name}"));
        registrations.chain(locks).map(Op::Delete).collect()
    }
}

fn fresh_token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
