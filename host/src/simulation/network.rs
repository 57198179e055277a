//! Requests between hosts: late, lost, doubled, or held up while a host does nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    lock,
    weather::{Weather, millis},
};
use crate::{
    cluster::{PodId, PostedView},
    leader::{Answer, Post, Task, patience},
    lifecycle::{Command, Request},
};

/// A request that has come to a host.
#[derive(Debug)]
pub(super) struct Delivery {
    /// The pod that it is for, if it tells.
    pub(super) meant: Option<PodId>,
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Map {
    hosts: BTreeMap<String, mpsc::UnboundedSender<Delivery>>,
    isolated: BTreeSet<String>,
}

/// The network. Clones are handles on the same.
#[derive(Debug, Clone)]
pub(super) struct Network {
    map: Arc<Mutex<Map>>,
    weather: Weather,
}

impl Network {
    pub(super) fn new(weather: Weather) -> Self {
        Self { map: Arc::default(), weather }
    }

    /// From now on this host is at the address.
    pub(super) fn attach(&self, address: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let (desk, deliveries) = mpsc::unbounded_channel();
        lock(&self.map).hosts.insert(address.to_owned(), desk);
        deliveries
    }

    /// Nothing comes from, or goes to, an isolated host.
    pub(super) fn isolate(&self, address: &str, isolated: bool) {
        let mut map = lock(&self.map);
        if isolated {
            map.isolated.insert(address.to_owned());
        } else {
            map.isolated.remove(address);
        }
    }

    pub(super) fn heal(&self) {
        lock(&self.map).isolated.clear();
    }

    /// Brings a request to a host; none where nobody listens.
    pub(super) fn deliver(
        &self,
        address: &str,
        meant: Option<PodId>,
        request: Request,
    ) -> Option<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        let desk = lock(&self.map).hosts.get(address).cloned()?;
        desk.send(Delivery { meant, request, reply }).ok()?;
        Some(answer)
    }

    /// What a leader's request comes to: the counterpart of its connections to peers.
    pub(super) async fn post(self, from: String, post: Post, epoch: i64, number: u64, limit: u64) -> (u64, Answer) {
        let call = post.call;
        let answer = timeout(patience(limit), self.exchange(&from, post, (epoch, number), limit)).await;
        (call, answer.unwrap_or_else(|_| Answer::Unreachable("no answer in time".to_owned())))
    }

    async fn exchange(&self, from: &str, post: Post, order: (i64, u64), limit: u64) -> Answer {
        let (address, meant) = (post.address.clone(), Some(post.pod.clone()));
        let request = request(post, order, limit);
        sleep(self.weather.latency()).await;
        self.pass(from, &address).await;
        if self.weather.strikes(|chances| chances.twice) {
            let (network, copy, address, meant) = (self.clone(), request.clone(), address.clone(), meant.clone());
            tokio::spawn(async move {
                sleep(millis(1..50)).await;
                network.deliver(&address, meant, copy);
            });
        }
        let Some(answer) = self.deliver(&address, meant, request) else {
            return Answer::Unreachable("nobody listens there".to_owned());
        };
        let Ok(answer) = answer.await else { return Answer::Unreachable("the connection was reset".to_owned()) };
        sleep(self.weather.latency()).await;
        self.pass(&address, from).await;
        answer
    }

    /// Never returns when the message is lost.
    async fn pass(&self, from: &str, to: &str) {
        let isolated = |host: &str| lock(&self.map).isolated.contains(host);
        if isolated(from) || isolated(to) || self.weather.strikes(|chances| chances.lost / 2.0) {
            pending::<()>().await;
        }
    }
}

/// As the receiver reads it.
fn request(post: Post, (epoch, number): (i64, u64), limit: u64) -> Request {
    let view = PostedView { key: post.pod, view: (*post.view).clone() };
    let command = match post.task {
        Task::Check => Command::Check(view),
        Task::Off => Command::Off,
        Task::On => Command::On(Some(view)),
        Task::Ok => Command::Ok(view),
    };
    let limit = std::time::Duration::from_secs(limit);
    Request { command, epoch: Some(epoch), number: Some(number), generation: Some(post.generation), limit }
}
