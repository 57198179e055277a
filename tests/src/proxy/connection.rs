//! One connection through a proxy.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    CatchPoint, Disposition, Protocol, ProxyState, Shared,
    message::{self, Message, Number},
};

/// The number of an HTTP request: one at a time.
const ONLY: Number = 0;

pub(super) struct Connection {
    shared: Arc<Shared>,
    state: watch::Receiver<ProxyState>,
    /// Number of cuts of all connections when this one was accepted.
    cuts: usize,
    /// Requests that were passed on and not answered yet.
    requests: HashMap<Number, Message>,
    sent: BytesMut,
    answered: BytesMut,
    first_request: bool,
    first_reply: bool,
}

/// The connection ends.
struct ConnectionCut;

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, state: watch::Receiver<ProxyState>) -> Self {
        let cuts = state.borrow().cuts;
        let (requests, sent, answered) = (HashMap::new(), BytesMut::new(), BytesMut::new());
        Self { shared, state, cuts, requests, sent, answered, first_request: true, first_reply: true }
    }

    /// Forwards until one side, or the proxy, cuts it.
    pub(super) async fn carry(mut self, client: TcpStream, target: SocketAddr) {
        // Either way both streams are dropped: the connection is cut.
        let _ = self.carry_on(client, target).await;
    }

    async fn carry_on(&mut self, mut client: TcpStream, target: SocketAddr) -> Result<(), ConnectionCut> {
        self.open().await?;
        let mut server = TcpStream::connect(target).await.map_err(|_| ConnectionCut)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true).map_err(|_| ConnectionCut)?;
        }
        loop {
            tokio::select! {
                read = client.read_buf(&mut self.sent) => some(read)?,
                read = server.read_buf(&mut self.answered) => some(read)?,
                _ = self.state.changed() => {}
            }
            while let Some(bytes) = self.next_request().await? {
                self.open().await?;
                server.write_all(&bytes).await.map_err(|_| ConnectionCut)?;
            }
            while let Some(bytes) = self.next_reply().await? {
                self.open().await?;
                client.write_all(&bytes).await.map_err(|_| ConnectionCut)?;
            }
        }
    }

    /// Waits while the proxy is silent.
    async fn open(&mut self) -> Result<(), ConnectionCut> {
        let cuts = self.cuts;
        let state =
            self.state.wait_for(|state| !state.silent || state.cuts != cuts).await.map_err(|_| ConnectionCut)?;
        if state.cuts == cuts && !state.refuses { Ok(()) } else { Err(ConnectionCut) }
    }

    /// Returns the next complete request to forward; none if more must be read.
    async fn next_request(&mut self) -> Result<Option<Bytes>, ConnectionCut> {
        loop {
            let (bytes, number, message) = match self.shared.protocol {
                Protocol::Http => {
                    let Some((bytes, message)) = message::http(&mut self.sent) else { return Ok(None) };
                    (bytes, ONLY, message)
                }
                Protocol::ZooKeeper => {
                    let Some(frame) = message::frame(&mut self.sent) else { return Ok(None) };
                    let first = std::mem::take(&mut self.first_request);
                    let (number, message) = message::request(&frame, first).ok_or(ConnectionCut)?;
                    (frame, number, message)
                }
            };
            let message = Message { length: bytes.len(), ..message };
            self.shared.saw(&message);
            match self.decide(CatchPoint::Request, &message).await {
                Disposition::Pass => {
                    self.requests.insert(number, message);
                    return Ok(Some(bytes));
                }
                Disposition::Swallow => {}
                Disposition::ConnectionCut => return Err(ConnectionCut),
            }
        }
    }

    /// Returns the next part of the replies to forward; none if more must be read. An HTTP reply is handled at its
    /// first bytes.
    async fn next_reply(&mut self) -> Result<Option<Bytes>, ConnectionCut> {
        loop {
            let (bytes, message) = match self.shared.protocol {
                Protocol::Http if self.answered.is_empty() => return Ok(None),
                Protocol::Http => (self.answered.split().freeze(), self.requests.remove(&ONLY)),
                Protocol::ZooKeeper => {
                    let Some(frame) = message::frame(&mut self.answered) else { return Ok(None) };
                    let first = std::mem::take(&mut self.first_reply);
                    let (number, event) = message::reply(&frame, first).ok_or(ConnectionCut)?;
                    (frame, event.or_else(|| self.requests.remove(&number)))
                }
            };
            let decision = match message {
                Some(message) => self.decide(CatchPoint::Reply, &message).await,
                None => Disposition::Pass,
            };
            match decision {
                Disposition::Pass => return Ok(Some(bytes)),
                Disposition::Swallow => {}
                Disposition::ConnectionCut => return Err(ConnectionCut),
            }
        }
    }

    /// Returns the disposition of a message: that of the test, if it waits for this one. Cutting all connections ends
    /// the wait.
    async fn decide(&mut self, when: CatchPoint, message: &Message) -> Disposition {
        let Some(decision) = self.shared.hand_over(when, message) else { return Disposition::Pass };
        let cuts = self.cuts;
        tokio::select! {
            // A test that drops what it caught cuts the connection.
            decision = decision => decision.unwrap_or(Disposition::ConnectionCut),
            _ = self.state.wait_for(|state| state.cuts != cuts) => Disposition::ConnectionCut,
        }
    }
}

fn some(read: std::io::Result<usize>) -> Result<(), ConnectionCut> {
    if read.is_ok_and(|bytes| bytes > 0) { Ok(()) } else { Err(ConnectionCut) }
}
