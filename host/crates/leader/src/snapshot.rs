//! The cluster's snapshot, as far as one leadership wrote it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use ochopod_model::{PodId, View};
use ochopod_timing::Backoff;

use super::event::{Effect, StoreWrite, WriteResult};

/// Decides when the snapshot is written.
#[derive(Debug, Default)]
pub(super) struct SnapshotWriter {
    /// Pods in the snapshot, and their roles. None until this leadership has written one, and after a failed write.
    pods: Option<BTreeMap<PodId, String>>,
    is_writing: bool,
    /// Time at which a failed write is retried.
    retry_at: Option<Instant>,
}

impl SnapshotWriter {
    /// Returns whether a write of the snapshot alone is in flight.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Returns the pods in the snapshot that this leadership has written, and their roles.
    pub(super) fn pods(&self) -> Option<&BTreeMap<PodId, String>> {
        self.pods.as_ref()
    }

    /// Returns the time at which a failed write has to be retried.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.is_writing)
    }

    /// Makes the snapshot list the pods of `view`: returns the write, if one is needed and may start now.
    pub(super) fn update(&mut self, view: &Arc<View>, now: Instant) -> Option<Effect> {
        let pods = pods_and_roles(view);
        if self.pods.as_ref() == Some(&pods) {
            self.retry_at = None;
            return None;
        }
        if self.is_writing || self.retry_at.is_some_and(|retry_at| retry_at > now) {
            return None;
        }
        self.retry_at = None;
        self.is_writing = true;
        self.pods = Some(pods);
        Some(Effect::Write(StoreWrite::Snapshot(Arc::clone(view))))
    }

    /// Drops a pending retry: no write is left.
    pub(super) fn cancel_retry(&mut self) {
        self.retry_at = None;
    }

    /// Records the result of the write in flight. Schedules a retry if it is unknown.
    pub(super) fn written(&mut self, result: WriteResult, retries: &mut Backoff, now: Instant) {
        self.is_writing = false;
        if let WriteResult::Unknown(reason) = result {
            tracing::warn!(reason, "snapshot write failed, retrying");
            self.pods = None;
            self.retry_at = Some(now + retries.delay());
        }
    }

    /// Records that a committed configuration replaced the snapshot.
    pub(super) fn committed(&mut self, view: &View) {
        self.pods = Some(pods_and_roles(view));
    }
}

fn pods_and_roles(view: &View) -> BTreeMap<PodId, String> {
    view.pods.iter().map(|(id, pod)| (id.clone(), pod.role().to_owned())).collect()
}
