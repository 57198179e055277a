//! Requests between hosts: late, lost, duplicated, or delayed while a host is paused.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use ochopod_client::{ClientError, ControlRequest, Reply};
use ochopod_lifecycle::Request;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, sleep},
};

use super::{
    fault_rates::{FaultSwitch, millis},
    lock,
};

/// Longer than any client waits.
const FAR_FUTURE: Duration = Duration::from_hours(1);

/// A request that was delivered to a host.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// A request on the network.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Of an operator.
    Operator(Request),
    /// Of a leader, as it is sent.
    Leader(ControlRequest),
}

#[derive(Debug, Default)]
struct NetworkState {
    hosts: BTreeMap<String, mpsc::UnboundedSender<Delivery>>,
    isolated: BTreeSet<String>,
}

/// The network of one run. Clones share their state.
#[derive(Debug, Clone)]
pub(super) struct SimNetwork {
    map: Arc<Mutex<NetworkState>>,
    faults: FaultSwitch,
}

impl SimNetwork {
    pub(super) fn new(faults: FaultSwitch) -> Self {
        Self { map: Arc::default(), faults }
    }

    /// Attaches a host to an address.
    pub(super) fn attach(&self, address: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let (queue, deliveries) = mpsc::unbounded_channel();
        lock(&self.map).hosts.insert(address.to_owned(), queue);
        deliveries
    }

    /// Starts or stops dropping everything from and to a host.
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

    /// Delivers a request to a host. Nothing waits for the reply.
    pub(super) fn deliver(&self, address: &str, message: Message) {
        self.enqueue(address, Delivery { message, reply: oneshot::channel().0 });
    }

    fn enqueue(&self, address: &str, delivery: Delivery) {
        if let Some(queue) = lock(&self.map).hosts.get(address) {
            // If no host is left there, the sender notices.
            let _ = queue.send(delivery);
        }
    }

    /// Posts a request and waits for its reply, for as long as `timeout`.
    pub(super) async fn post(
        self,
        from: String,
        to: String,
        request: ControlRequest,
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        let reply = time::timeout(timeout, self.exchange(&from, &to, request)).await;
        reply.unwrap_or(Err(ClientError::TimedOut(timeout)))
    }

    async fn exchange(&self, from: &str, to: &str, request: ControlRequest) -> Result<Reply, ClientError> {
        let (reply, answer) = oneshot::channel();
        let delivery = Delivery { message: Message::Leader(request), reply };
        tokio::spawn(self.clone().carry(from.to_owned(), to.to_owned(), delivery));
        let Ok(answer) = answer.await else { return Err(ClientError::Closed) };
        sleep(self.faults.latency()).await;
        if self.drops(from, to) {
            pending::<()>().await;
        }
        Ok(answer)
    }

    /// Carries a request to its host, even if the sender no longer waits for the reply.
    async fn carry(self, from: String, to: String, delivery: Delivery) {
        sleep(self.faults.latency()).await;
        if self.drops(&from, &to) {
            // Lost without a trace: the sender is not notified.
            sleep(FAR_FUTURE).await;
            return;
        }
        let copy = self.faults.occurs(|rates| rates.twice).then(|| delivery.message.clone());
        self.enqueue(&to, delivery);
        if let Some(message) = copy {
            sleep(millis(1..50)).await;
            self.deliver(&to, message);
        }
    }

    fn drops(&self, from: &str, to: &str) -> bool {
        let isolated = {
            let map = lock(&self.map);
            map.isolated.contains(from) || map.isolated.contains(to)
        };
        isolated || self.faults.occurs(|rates| rates.lost / 2.0)
    }
}
