//! Requests between hosts: late, lost, doubled, or held up while a host does nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
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

/// Longer than anybody waits.
const LONG: Duration = Duration::from_hours(1);

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

    /// Brings a request to a host; nobody waits for the answer.
    pub(super) fn deliver(&self, address: &str, meant: Option<PodId>, request: Request) {
        self.hand_over(address, Delivery { meant, request, reply: oneshot::channel().0 });
    }

    fn hand_over(&self, address: &str, delivery: Delivery) {
        if let Some(desk) = lock(&self.map).hosts.get(address) {
            // Nobody listens there any more: the sender hears so.
            let _ = desk.send(delivery);
        }
    }

    /// What a leader's request comes to: the counterpart of its connections to peers.
    pub(super) async fn post(self, from: String, to: String, meant: PodId, request: Request) -> Answer {
        let patience = patience(request.limit.as_secs());
        let answer = timeout(patience, self.exchange(&from, &to, meant, request)).await;
        answer.unwrap_or_else(|_| Answer::Unreachable("no answer in time".to_owned()))
    }

    async fn exchange(&self, from: &str, to: &str, meant: PodId, request: Request) -> Answer {
        let (reply, answer) = oneshot::channel();
        let delivery = Delivery { meant: Some(meant), request, reply };
        tokio::spawn(self.clone().carry(from.to_owned(), to.to_owned(), delivery));
        let Ok(answer) = answer.await else { return Answer::Unreachable("nobody answers there".to_owned()) };
        sleep(self.weather.latency()).await;
        if self.swallows(from, to) {
            pending::<()>().await;
        }
        answer
    }

    /// What was sent is on its way, whether or not somebody still waits for the answer.
    async fn carry(self, from: String, to: String, delivery: Delivery) {
        sleep(self.weather.latency()).await;
        if self.swallows(&from, &to) {
            // Nobody hears of it, its sender neither.
            sleep(LONG).await;
            return;
        }
        let copy =
            self.weather.strikes(|chances| chances.twice).then(|| (delivery.meant.clone(), delivery.request.clone()));
        self.hand_over(&to, delivery);
        if let Some((meant, request)) = copy {
            sleep(millis(1..50)).await;
            self.deliver(&to, meant, request);
        }
    }

    fn swallows(&self, from: &str, to: &str) -> bool {
        let isolated = {
            let map = lock(&self.map);
            map.isolated.contains(from) || map.isolated.contains(to)
        };
        isolated || self.weather.strikes(|chances| chances.lost / 2.0)
    }
}

/// As the receiver reads it.
pub(super) fn request(post: Post, epoch: i64, number: u64, limit: u64) -> Request {
    let view = PostedView { key: post.pod, view: (*post.view).clone() };
    let command = match post.task {
        Task::Check => Command::Check(view),
        Task::Off => Command::Off,
        Task::On => Command::On(Some(view)),
        Task::Ok => Command::Ok(view),
    };
    let limit = Duration::from_secs(limit);
    Request { command, epoch: Some(epoch), number: Some(number), generation: Some(post.generation), limit }
}
