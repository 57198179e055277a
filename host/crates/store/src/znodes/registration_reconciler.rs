//! Registration and lock node of a pod under one session.
//!
//! The nodes in the store are reconciled with the wanted state: [`RegistrationReconciler::run`] may be dropped at any await and
//! started again, and finds what an earlier run, or a commit of unknown outcome, left behind.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use ochopod_model::Registration;
use ochopod_timing::Backoff;
use tokio::{
    sync::{oneshot, watch},
    time::{self, Instant},
};
use tracing::{debug, info, warn};

use super::{
    CoordError, Coordination, Mode, Node, NodeAccess, Op, SessionState, Watch,
    election::{QueuePosition, queue_position},
    layout::parse_registration,
    member_state::MemberState,
    parent_nodes,
};
use crate::{ActiveRegistration, Leadership, Membership, RESYNC_INTERVAL, membership::set_last_error};

/// Bounds of the delays between failed attempts.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Bounds of the delays before nodes that another client changed are restored, except for the first time.
const RESTORE_DELAY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// Time without external changes after which these delays are short again.
const RESTORE_RESET_AFTER: Duration = Duration::from_mins(1);

/// Attempts to create a lock node that is deleted immediately, before a delay.
const MAX_LOCK_ATTEMPTS: usize = 5;

/// Registrations, the newest ones, that a pod reads when it registers for the first time. All of them would be n² reads when many
/// pods start together. Older ones need not be read: see [`RegistrationReconciler::raise_numbers`].
const NEWEST_READ: usize = 32;

/// Sequence numbers that one commit skips at most if the numbering of the store is behind that of the pods.
const MAX_SKIPPED_SEQ: u64 = 64;

/// Result of one reconciliation.
enum ReconcileResult {
    /// A node may have changed.
    Changed,
    /// Another client deleted or overwrote the registration.
    ChangedExternally,
}

/// The registration under this session.
struct OwnRegistration {
    path: String,
    dead: bool,
}

/// Reconciles the nodes of a pod under one session.
pub(super) struct RegistrationReconciler<'a> {
    pod: &'a mut MemberState,
    session: Arc<dyn Coordination>,
    membership: &'a watch::Sender<Membership>,
    own: Option<OwnRegistration>,
    /// Whether a lock node with the current token may exist.
    contending: bool,
    /// Epoch of its lock node, once it was first in the queue.
    epoch: Option<i64>,
    /// Notified when the nodes are reconciled.
    waiting: Vec<oneshot::Sender<()>>,
}

impl<'a> RegistrationReconciler<'a> {
    pub(super) fn new(
        pod: &'a mut MemberState,
        session: Arc<dyn Coordination>,
        membership: &'a watch::Sender<Membership>,
    ) -> Self {
        Self { pod, session, membership, own: None, contending: false, epoch: None, waiting: Vec::new() }
    }

    /// Handles a state of the session, which may be unchanged.
    pub(super) fn on_session_state(&mut self, state: SessionState) {
        if state != SessionState::Connected {
            self.waiting.clear();
            self.set_leadership(None);
        }
        let session = Some(self.session.id());
        self.membership.send_if_modified(|m| {
            let before = (m.state, m.session);
            if (m.state, state) == (SessionState::Suspended, SessionState::Connected) {
                m.reconnected_at = Some(Instant::now().into_std());
            }
            if before.0 != state && state == SessionState::Connected {
                // Earlier errors do not apply to this connection.
                m.last_error = None;
            }
            (m.state, m.session) = (state, session);
            before != (state, session)
        });
    }

    pub(super) fn mark_dead(&mut self) {
        self.release_lock();
        self.pod.mark_dead();
    }

    pub(super) fn revive(&mut self) {
        self.pod.revive();
    }

    pub(super) fn step_down(&mut self) {
        self.release_lock();
        self.pod.step_down();
    }

    pub(super) fn yield_lock(&mut self, duration: Duration) {
        info!(seconds = duration.as_secs_f64(), "yielding leader lock");
        self.release_lock();
        self.pod.yield_until(Instant::now() + duration);
    }

    pub(super) fn stop_yielding(&mut self) {
        self.pod.stop_yielding();
    }

    pub(super) fn set_contending(&mut self, contending: bool) {
        if self.pod.set_contending(contending) {
            info!(contending, "contention for leader lock changed");
            if !contending {
                self.release_lock();
            }
        }
    }

    pub(super) fn resign(&mut self, epoch: i64) {
        if self.epoch == Some(epoch) {
            info!(epoch, "resigning");
            self.release_lock();
            self.pod.rotate_lock_token();
        }
    }

    pub(super) fn notify_when_reconciled(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
    }

    fn release_lock(&mut self) {
        self.contending = false;
        self.epoch = None;
        self.set_leadership(None);
    }

    /// Reconciles for as long as the session lasts; returns the error that ended it.
    pub(super) async fn run(&mut self) -> CoordError {
        let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        let mut external_changes = (Backoff::new(RESTORE_DELAY.0, RESTORE_DELAY.1), Instant::now());
        loop {
            match self.reconcile().await {
                Ok(ReconcileResult::Changed) => backoff.reset(),
                Ok(ReconcileResult::ChangedExternally) => {
                    backoff.reset();
                    let (waits, last) = &mut external_changes;
                    if std::mem::replace(last, Instant::now()).elapsed() > RESTORE_RESET_AFTER {
                        waits.reset();
                    }
                    let (is_first, delay) = (waits.attempts() == 0, waits.delay());
                    if !is_first {
                        time::sleep(delay).await;
                    }
                }
                Err(CoordError::SessionLost) => return CoordError::SessionLost,
                // A pod that was registered once continues: changed ACLs may be changed back.
                Err(error) if error.is_auth_error() && self.pod.seq.is_none() => return error,
                Err(error) => {
                    // A connection that breaks up is not an error of the registration.
                    if backoff.attempts() >= 3 || !matches!(error, CoordError::Unavailable(_)) {
                        set_last_error(self.membership, &error);
                    }
                    if backoff.attempts() < 3 {
                        debug!(%error, "cannot register or contend for the lock, retrying");
                    } else {
                        warn!(%error, "cannot register or contend for the lock, retrying");
                    }
                    time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Reconciles once and returns when a node may have changed.
    async fn reconcile(&mut self) -> Result<ReconcileResult, CoordError> {
        let registration = self.register().await?;
        self.delete_discarded().await?;
        self.waiting.clear();
        // Taken before the lock is contended for: a yield that ends meanwhile is noticed.
        let yields_until = self.pod.yields_until(Instant::now());
        let session = Arc::clone(&self.session);
        let (own, on_session_state) = tokio::join!(session.read_and_watch(&registration), self.contend());
        let (own, gone) = own?;
        let expected = self.pod.payload(self.pod.seq);
        if own.as_ref().is_none_or(|node| node.data != expected) {
            let cause = if own.is_none() { "deleted" } else { "overwritten" };
            warn!(cause, "registration changed externally, registering again");
            self.own = None;
            self.membership.send_modify(|m| {
                m.registered = None;
                m.last_error = Some(format!("registration {cause} by another client"));
            });
            return Ok(ReconcileResult::ChangedExternally);
        }
        let on_session_state = on_session_state?.unwrap_or_else(|| Box::pin(pending()));
        tokio::select! {
            () = gone => {}
            () = on_session_state => {}
            () = sleep_until(yields_until) => {}
            () = time::sleep(RESYNC_INTERVAL) => {}
        }
        Ok(ReconcileResult::Changed)
    }

    /// Ensures that the pod is registered under this session in its current state. Returns the path of the registration.
    async fn register(&mut self) -> Result<String, CoordError> {
        let dead = self.pod.dead;
        if let Some(own) = &mut self.own {
            if own.dead != dead {
                let set = Op::Set { path: own.path.clone(), data: self.pod.payload(self.pod.seq) };
                if let Err(error) = self.session.commit(vec![set]).await {
                    // The node may be deleted; the next reconciliation detects it.
                    self.own = None;
                    return Err(error);
                }
                own.dead = dead;
            }
            return Ok(own.path.clone());
        }
        let (pods, locks) = parent_nodes::ensure_and_list(&*self.session, &self.pod.layout).await?;
        let cleanup_ops = self.pod.cleanup_ops(&pods, &locks);
        let (path, seq) = if let Some(seq) = self.pod.seq {
            (self.create(cleanup_ops, seq).await?, seq)
        } else {
            parent_nodes::warn_acl_mismatch(&*self.session, &self.pod.layout).await;
            self.create_first(cleanup_ops).await?
        };
        self.pod.discarded.clear();
        self.own = Some(OwnRegistration { path: path.clone(), dead });
        let after_loss = self.pod.after_loss;
        info!(path, seq, after_loss, "registered");
        let registered = ActiveRegistration { seq, at: Instant::now().into_std(), after_loss };
        self.membership.send_modify(|m| {
            m.registered = Some(registered);
            m.last_error = None;
            m.reconnected_at = m.reconnected_at.max(after_loss.then_some(registered.at));
        });
        Ok(path)
    }

    /// Registers again, in one commit with the deletion of earlier nodes.
    async fn create(&self, mut ops: Vec<Op>, seq: u64) -> Result<String, CoordError> {
        ops.push(self.pod.create_op(Some(seq)));
        let path = self.session.commit(ops).await?.pop().ok_or_else(|| unexpected("commit created no node"))?;
        self.raise_numbers(&path, seq).await?;
        Ok(path)
    }

    /// Lets the store number later registrations above the `seq` of this pod. They are, unless the store was emptied while the
    /// pod kept its `seq`.
    async fn raise_numbers(&self, path: &str, seq: u64) -> Result<(), CoordError> {
        let (mut number, mut ops) = (number_of(path)?, Vec::new());
        while number < seq {
            let skipped = (seq - number).min(MAX_SKIPPED_SEQ);
            info!(number, seq, "sequence number below that of this pod, skipping some");
            ops.extend((0..skipped).map(|_| self.pod.create_op(None)));
            let created = self.session.commit(std::mem::take(&mut ops)).await?;
            let last = created.last().ok_or_else(|| unexpected("commit created no node"))?;
            number = number_of(last)?;
            ops.extend(created.into_iter().map(Op::Delete));
        }
        if !ops.is_empty() {
            self.session.commit(ops).await?;
        }
        Ok(())
    }

    /// Registers for the first time: the number of the node becomes the `seq` of the pod, unless a registered pod has the same or
    /// a higher one (the store was emptied while pods kept theirs). Readers skip the registration until it contains the `seq`.
    async fn create_first(&mut self, mut ops: Vec<Op>) -> Result<(String, u64), CoordError> {
        let mut skip = 1;
        loop {
            ops.extend((0..skip).map(|_| self.pod.create_op(None)));
            let mut created = self.session.commit(std::mem::take(&mut ops)).await?;
            let path = created.pop().ok_or_else(|| unexpected("commit created no node"))?;
            let number = number_of(&path)?;
            ops.extend(created.into_iter().map(Op::Delete));
            match self.highest_seq().await? {
                Some(highest) if number <= highest => {
                    info!(number, highest, "sequence number not above the highest registered, allocating another");
                    ops.push(Op::Delete(path));
                    skip = (highest + 1 - number).min(MAX_SKIPPED_SEQ);
                }
                _ => {
                    // The number is final even if the response is lost: others may have read the content.
                    self.pod.seq = Some(number);
                    ops.push(Op::Set { path: path.clone(), data: self.pod.payload(Some(number)) });
                    self.session.commit(ops).await?;
                    return Ok((path, number));
                }
            }
        }
    }

    /// Returns the highest `seq` of the other pods that registered last.
    async fn highest_seq(&self) -> Result<Option<u64>, CoordError> {
        let pods = self.pod.layout.pods();
        let names = self.session.children(&pods).await?.unwrap_or_default();
        let others = names.iter().filter_map(|name| Some((parse_registration(name)?, name)));
        let mut others: Vec<(u64, String)> = others
            .filter(|((id, _), _)| *id != self.pod.id)
            .map(|((_, number), name)| (number, format!("{pods}/{name}")))
            .collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        others.truncate(NEWEST_READ);
        let read = |(_, path): (u64, String)| async move { self.session.read(&path).await };
        let seq = |node: Option<Node>| Some(Registration::parse(&node?.data).ok()?.seq());
        let highest = |highest: Option<u64>, node| async move { Ok(highest.max(seq(node))) };
        stream::iter(others).map(read).buffer_unordered(NEWEST_READ).try_fold(None, highest).await
    }

    /// Deletes released lock nodes.
    async fn delete_discarded(&mut self) -> Result<(), CoordError> {
        if self.pod.discarded.is_empty() {
            return Ok(());
        }
        let locks = self.session.children(&self.pod.layout.coordinator()).await?.unwrap_or_default();
        let cleanup_ops = self.pod.cleanup_ops(&[], &locks);
        if !cleanup_ops.is_empty() {
            self.session.commit(cleanup_ops).await?;
            info!("leader lock released");
        }
        self.pod.discarded.clear();
        Ok(())
    }

    /// Contends for the lock, if the pod does. The returned watch completes when its position in the queue may have changed.
    async fn contend(&mut self) -> Result<Option<Watch>, CoordError> {
        if !self.pod.contends(Instant::now()) {
            return Ok(None);
        }
        let coordinator = self.pod.layout.coordinator();
        for _ in 0..MAX_LOCK_ATTEMPTS {
            if !self.contending {
                self.contending = true;
                let (path, data) = (self.pod.layout.lock(&self.pod.token), self.pod.id.as_str().into());
                self.session
                    .commit(vec![Op::Create {
                        path,
                        data,
                        mode: Mode::EphemeralSequential,
                        access: NodeAccess::Cluster,
                    }])
                    .await?;
            }
            let Some(names) = self.session.children(&coordinator).await? else {
                self.release_lock();
                parent_nodes::ensure_and_list(&*self.session, &self.pod.layout).await?;
                continue;
            };
            let (lock, first) = match queue_position(&names, &self.pod.token) {
                QueuePosition::Absent => {
                    self.release_lock();
                    continue;
                }
                QueuePosition::First(name) => (format!("{coordinator}/{name}"), true),
                QueuePosition::Behind(name) => (format!("{coordinator}/{name}"), false),
            };
            let (node, watch) = self.session.read_and_watch(&lock).await?;
            match node {
                Some(node) if first && node.owner == Some(self.session.id()) => {
                    let session = Arc::clone(&self.session);
                    self.epoch = Some(node.created);
                    let cluster = self.pod.cluster.clone();
                    self.set_leadership(Some(Leadership::new(node.created, lock, session, cluster)));
                    return Ok(Some(watch));
                }
                Some(_) if !first => {
                    debug!(predecessor = lock, "waiting for leader lock");
                    self.set_leadership(None);
                    return Ok(Some(watch));
                }
                Some(_) => return Err(unexpected(&format!("lock node {lock} belongs to another session"))),
                None => {}
            }
        }
        Err(CoordError::Unavailable(format!("lock nodes in {coordinator} are deleted concurrently")))
    }

    fn set_leadership(&self, leadership: Option<Leadership>) {
        self.membership.send_if_modified(|m| {
            let (before, after) = (m.leadership.as_ref().map(|l| l.epoch), leadership.as_ref().map(|l| l.epoch));
            m.leadership = leadership;
            match after {
                _ if before == after => return false,
                Some(epoch) => info!(epoch, "leader lock acquired"),
                None => info!("leader lock lost or unconfirmed"),
            }
            true
        });
    }
}

/// Waits until this time; forever if there is none.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => pending().await,
    }
}

/// Returns the number that the store appended to a registration.
fn number_of(path: &str) -> Result<u64, CoordError> {
    let number = path.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| unexpected(&format!("node {path} has no number")))
}

fn unexpected(what: &str) -> CoordError {
    CoordError::Unexpected(what.to_owned())
}
