//! What a pod does under one session: it registers, gives back what it has no right to, and contends for the lock.
//!
//! All of it is a reconciliation of what the store has with what the pod wants: [`Tenure::work`] may be dropped at any await
//! and started anew, and finds what an earlier run, or a commit of unknown outcome, left behind.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{oneshot, watch},
    time::{self, Instant},
};
use tracing::{debug, info, warn};

use super::{
    Access, CoordError, Coordination, Leadership, Membership, Mode, Op, REREAD, Registered, SessionState, Watch,
    election::{Place, place},
    layout::parse_registration,
    parents,
    pod::Pod,
};
use crate::{backoff::Backoff, cluster::Registration};

/// Bounds of the waits between failed attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Registrations read at a time.
const READS: usize = 64;

/// Numbers that one commit skips at most when the store's numbering is behind the pods'.
const SKIPS: u64 = 64;

/// The present registration.
struct Entry {
    path: String,
    dead: bool,
}

/// The pod under one session.
pub(super) struct Tenure<'a> {
    pod: &'a mut Pod,
    session: Arc<dyn Coordination>,
    membership: &'a watch::Sender<Membership>,
    entry: Option<Entry>,
    /// Whether a lock node with the present token may exist.
    stood: bool,
    /// Epoch of the own lock node, once it was the oldest.
    epoch: Option<i64>,
    /// Who waits for the store to have what the pod wants.
    waiting: Vec<oneshot::Sender<()>>,
}

impl<'a> Tenure<'a> {
    pub(super) fn new(
        pod: &'a mut Pod,
        session: Arc<dyn Coordination>,
        membership: &'a watch::Sender<Membership>,
    ) -> Self {
        Self { pod, session, membership, entry: None, stood: false, epoch: None, waiting: Vec::new() }
    }

    /// The session's state has changed, perhaps.
    pub(super) fn turn(&mut self, state: SessionState) {
        if state != SessionState::Connected {
            self.waiting.clear();
            self.lead(None);
        }
        let session = Some(self.session.id());
        self.membership.send_if_modified(|m| {
            let before = (m.state, m.session);
            if (m.state, state) == (SessionState::Suspended, SessionState::Connected) {
                m.back_since = Some(Instant::now().into_std());
            }
            (m.state, m.session) = (state, session);
            before != (state, session)
        });
    }

    pub(super) fn retire(&mut self) {
        self.give_up_lock();
        self.pod.retire();
    }

    pub(super) fn step_down(&mut self) {
        self.give_up_lock();
        self.pod.step_down();
    }

    pub(super) fn resign(&mut self, epoch: i64) {
        if self.epoch == Some(epoch) {
            info!(epoch, "resigning");
            self.give_up_lock();
            self.pod.leave_lock_behind();
        }
    }

    pub(super) fn reply_when_settled(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
    }

    fn give_up_lock(&mut self) {
        self.stood = false;
        self.epoch = None;
        self.lead(None);
    }

    /// Makes the store have what the pod wants, for as long as the session lasts; the error that ended it.
    pub(super) async fn work(&mut self) -> CoordError {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.pass().await {
                Ok(()) => backoff.reset(),
                Err(CoordError::SessionLost) => return CoordError::SessionLost,
                // Who was let in once goes on: what has changed since may be changed back.
                Err(error) if error.is_refusal() && self.pod.seq.is_none() => return error,
                Err(error) => {
                    if backoff.attempts() < 3 {
                        debug!("trying again: {error}");
                    } else {
                        warn!("still trying: {error}");
                    }
                    time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Reconciles once and returns when there may be something to do again.
    async fn pass(&mut self) -> Result<(), CoordError> {
        let registration = self.register().await?;
        self.clear().await?;
        self.waiting.clear();
        let session = Arc::clone(&self.session);
        let (own, turn) = tokio::join!(session.read_and_watch(&registration), self.stand());
        let (own, gone) = own?;
        if own.is_none() {
            warn!("the registration was deleted by somebody else; registering again");
            self.entry = None;
            return Ok(());
        }
        let turn = turn?.unwrap_or_else(|| Box::pin(pending()));
        tokio::select! {
            () = gone => {}
            () = turn => {}
            () = time::sleep(REREAD) => {}
        }
        Ok(())
    }

    /// Makes sure that the pod is registered under this session, as it is now. Returns the registration's path.
    async fn register(&mut self) -> Result<String, CoordError> {
        let dead = self.pod.retired;
        if let Some(entry) = &mut self.entry {
            if entry.dead != dead {
                let set = Op::Set { path: entry.path.clone(), data: self.pod.payload(self.pod.seq) };
                if let Err(error) = self.session.commit(vec![set]).await {
                    // It may be gone; what comes next finds out.
                    self.entry = None;
                    return Err(error);
                }
                entry.dead = dead;
            }
            return Ok(entry.path.clone());
        }
        let (pods, locks) = parents::open(&*self.session, &self.pod.layout).await?;
        let clearing = self.pod.clearing(&pods, &locks);
        let (path, seq) = if let Some(seq) = self.pod.seq {
            (self.create(clearing, seq).await?, seq)
        } else {
            parents::tell_of_others_access(&*self.session, &self.pod.layout).await;
            self.create_first(clearing).await?
        };
        self.pod.discarded.clear();
        self.entry = Some(Entry { path: path.clone(), dead });
        let after_loss = self.pod.after_loss;
        info!(seq, after_loss, "registered as {path}");
        let registered = Registered { seq, at: Instant::now().into_std(), after_loss };
        self.membership.send_modify(|m| {
            m.registered = Some(registered);
            m.back_since = m.back_since.max(after_loss.then_some(registered.at));
        });
        Ok(path)
    }

    /// Registers again, in one commit with the deletion of what was there.
    async fn create(&self, mut ops: Vec<Op>, seq: u64) -> Result<String, CoordError> {
        ops.push(self.pod.creation(Some(seq)));
        self.session.commit(ops).await?.pop().ok_or_else(|| unexpected("a commit created nothing"))
    }

    /// Registers for the first time: the node's number becomes the pod's, unless a registered pod has it or a higher one
    /// (the store was emptied while pods kept theirs). Until the content has the `seq`, readers skip it.
    async fn create_first(&mut self, mut ops: Vec<Op>) -> Result<(String, u64), CoordError> {
        let mut skip = 1;
        loop {
            ops.extend((0..skip).map(|_| self.pod.creation(None)));
            let mut created = self.session.commit(std::mem::take(&mut ops)).await?;
            let path = created.pop().ok_or_else(|| unexpected("a commit created nothing"))?;
            let number = path.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
            let number: u64 = number.ok_or_else(|| unexpected(&format!("{path} has no number")))?;
            ops.extend(created.into_iter().map(Op::Delete));
            match self.highest_seq().await? {
                Some(highest) if number <= highest => {
                    info!("number {number} is not above {highest}, which a pod has kept; taking another");
                    ops.push(Op::Delete(path));
                    skip = (highest + 1 - number).min(SKIPS);
                }
                _ => {
                    // Even should the answer be lost, the content may have been seen: the number is given.
                    self.pod.seq = Some(number);
                    ops.push(Op::Set { path: path.clone(), data: self.pod.payload(Some(number)) });
                    self.session.commit(ops).await?;
                    return Ok((path, number));
                }
            }
        }
    }

    /// The highest `seq` among the other registered pods.
    async fn highest_seq(&self) -> Result<Option<u64>, CoordError> {
        let pods = self.pod.layout.pods();
        let names = self.session.children(&pods).await?.unwrap_or_default();
        let others = |name: &String| parse_registration(name).is_some_and(|(id, _)| id != self.pod.id);
        let others: Vec<String> = names.into_iter().filter(others).map(|name| format!("{pods}/{name}")).collect();
        let read = |path: String| async move { self.session.read(&path).await };
        let seq = |node: Option<super::Node>| Some(Registration::parse(&node?.data).ok()?.seq());
        let highest = |highest: Option<u64>, node| async move { Ok(highest.max(seq(node))) };
        stream::iter(others).map(read).buffer_unordered(READS).try_fold(None, highest).await
    }

    /// Deletes lock nodes that were given up.
    async fn clear(&mut self) -> Result<(), CoordError> {
        if self.pod.discarded.is_empty() {
            return Ok(());
        }
        let locks = self.session.children(&self.pod.layout.coordinator()).await?.unwrap_or_default();
        let clearing = self.pod.clearing(&[], &locks);
        if !clearing.is_empty() {
            self.session.commit(clearing).await?;
            info!("released the lock node");
        }
        self.pod.discarded.clear();
        Ok(())
    }

    /// Contends for the lock, if the pod does. What it returns completes when the place may have changed.
    async fn stand(&mut self) -> Result<Option<Watch>, CoordError> {
        if !self.pod.contends {
            return Ok(None);
        }
        let coordinator = self.pod.layout.coordinator();
        loop {
            if !self.stood {
                self.stood = true;
                let (path, data) = (self.pod.layout.lock(&self.pod.token), self.pod.id.as_str().into());
                self.session
                    .commit(vec![Op::Create { path, data, mode: Mode::EphemeralSequential, access: Access::Cluster }])
                    .await?;
            }
            let Some(names) = self.session.children(&coordinator).await? else {
                self.give_up_lock();
                parents::open(&*self.session, &self.pod.layout).await?;
                continue;
            };
            let (lock, first) = match place(&names, &self.pod.token) {
                Place::Absent => {
                    self.give_up_lock();
                    continue;
                }
                Place::First(name) => (format!("{coordinator}/{name}"), true),
                Place::Behind(name) => (format!("{coordinator}/{name}"), false),
            };
            let (node, watch) = self.session.read_and_watch(&lock).await?;
            match node {
                Some(node) if first && node.owner == Some(self.session.id()) => {
                    let session = Arc::clone(&self.session);
                    self.epoch = Some(node.created);
                    self.lead(Some(Leadership { epoch: node.created, lock, session }));
                    return Ok(Some(watch));
                }
                Some(_) if !first => {
                    debug!("following {lock}");
                    self.lead(None);
                    return Ok(Some(watch));
                }
                Some(_) => return Err(unexpected(&format!("{lock} belongs to another session"))),
                None => {}
            }
        }
    }

    fn lead(&self, leadership: Option<Leadership>) {
        self.membership.send_if_modified(|m| {
            let (before, after) = (m.leadership.as_ref().map(|l| l.epoch), leadership.as_ref().map(|l| l.epoch));
            m.leadership = leadership;
            match after {
                _ if before == after => return false,
                Some(epoch) => info!(epoch, "holding the lock"),
                None => info!("not holding the lock any more, or not known to"),
            }
            true
        });
    }
}

fn unexpected(what: &str) -> CoordError {
    CoordError::Unexpected(what.to_owned())
}
