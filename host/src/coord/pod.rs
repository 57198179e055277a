//! What a pod is to its cluster over all its sessions, and what it wants the store to have: pure.

use serde_json::{Map, Value};

use super::{
    Access, Mode, Op,
    layout::{Layout, parse_registration},
};
use crate::cluster::{DEAD, PodId};

/// The pod over all its sessions: what it is and what it wants.
pub(super) struct Pod {
    pub(super) layout: Layout,
    pub(super) id: PodId,
    registration: Map<String, Value>,
    pub(super) seq: Option<u64>,
    pub(super) after_loss: bool,
    pub(super) retired: bool,
    pub(super) contends: bool,
    /// Names the lock node, so that it is found again when its creation was not confirmed.
    pub(super) token: String,
    /// Tokens of lock nodes that have to go.
    pub(super) discarded: Vec<String>,
}

impl Pod {
    pub(super) fn new(layout: Layout, id: PodId, registration: Map<String, Value>) -> Self {
        let (seq, token, discarded) = (None, fresh_token(), Vec::new());
        Self { layout, id, registration, seq, after_loss: false, retired: false, contends: true, token, discarded }
    }

    pub(super) fn retire(&mut self) {
        self.retired = true;
        self.step_down();
    }

    pub(super) fn step_down(&mut self) {
        self.contends = false;
        self.leave_lock_behind();
    }

    /// The present lock node, if there is one, is no more ours: it goes as soon as possible.
    pub(super) fn leave_lock_behind(&mut self) {
        self.discarded.push(std::mem::replace(&mut self.token, fresh_token()));
    }

    pub(super) fn payload(&self, seq: Option<u64>) -> Vec<u8> {
        let mut fields = self.registration.clone();
        if let Some(seq) = seq {
            fields.insert("seq".to_owned(), seq.into());
        }
        if self.retired {
            fields.insert("status".to_owned(), DEAD.into());
        }
        Value::Object(fields).to_string().into_bytes()
    }

    pub(super) fn creation(&self, seq: Option<u64>) -> Op {
        let (path, data) = (self.layout.registration(&self.id), self.payload(seq));
        Op::Create { path, data, mode: Mode::EphemeralSequential, access: Access::Readable }
    }

    /// Deletions of what earlier sessions left behind.
    pub(super) fn clearing(&self, pods: &[String], locks: &[String]) -> Vec<Op> {
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
