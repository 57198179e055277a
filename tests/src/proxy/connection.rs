//! One connection through a proxy.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    Decision, Protocol, Shared, State, When,
    message::{self, Message, Number},
};

/// The number of a request of HTTP: one at a time.
const ONLY: Number = 0;

pub(super) struct Connection {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    /// How often all connections had been cut when this one came.
    cuts: usize,
    /// Requests that were passed on and not answered yet.
    asked: HashMap<Number, Message>,
    sent: BytesMut,
    answered: BytesMut,
    first_request: bool,
    first_reply: bool,
}

/// The connection is to end.
struct Cut;

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, state: watch::Receiver<State>) -> Self {
        let cuts = state.borrow().cuts;
        let (asked, sent, answered) = (HashMap::new(), BytesMut::new(), BytesMut::new());
        Self { shared, state, cuts, asked, sent, answered, first_request: true, first_reply: true }
    }

    /// Carries until one side, or the proxy, cuts it.
    pub(super) async fn carry(mut self, client: TcpStream, target: SocketAddr) {
        // Either way both streams are dropped: the connection is cut.
        let _ = self.carry_on(client, target).await;
    }

    async fn carry_on(&mut self, mut client: TcpStream, target: SocketAddr) -> Result<(), Cut> {
        self.open().await?;
        let mut server = TcpStream::connect(target).await.map_err(|_| Cut)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true).map_err(|_| Cut)?;
        }
        loop {
            tokio::select! {
                read = client.read_buf(&mut self.sent) => some(read)?,
                read = server.read_buf(&mut self.answered) => some(read)?,
                _ = self.state.changed() => {}
            }
            while let Some(bytes) = self.next_request().await? {
                self.open().await?;
                server.write_all(&bytes).await.map_err(|_| Cut)?;
            }
            while let Some(bytes) = self.next_reply().await? {
                self.open().await?;
                client.write_all(&bytes).await.map_err(|_| Cut)?;
            }
        }
    }

    /// Waits while the proxy is silent.
    async fn open(&mut self) -> Result<(), Cut> {
        let cuts = self.cuts;
        let state = self.state.wait_for(|state| !state.silent || state.cuts != cuts).await.map_err(|_| Cut)?;
        if state.cuts == cuts && !state.refuses { Ok(()) } else { Err(Cut) }
    }

    /// The next whole request that is passed on; none when more has to be read.
    async fn next_request(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            let (bytes, number, message) = match self.shared.protocol {
                Protocol::Http => {
                    let Some((bytes, message)) = message::http(&mut self.sent) else { return Ok(None) };
                    (bytes, ONLY, message)
                }
                Protocol::ZooKeeper => {
                    let Some(frame) = message::frame(&mut self.sent) else { return Ok(None) };
                    let first = std::mem::take(&mut self.first_request);
                    let (number, message) = message::request(&frame, first).ok_or(Cut)?;
                    (frame, number, message)
                }
            };
            self.shared.saw(&message);
            match self.decide(When::Request, &message).await {
                Decision::Pass => {
                    self.asked.insert(number, message);
                    return Ok(Some(bytes));
                }
                Decision::Swallow => {}
                Decision::Cut => return Err(Cut),
            }
        }
    }

    /// What is passed on next of the answers; none when more has to be read. Of HTTP, an answer is judged by its beginning.
    async fn next_reply(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            let (bytes, message) = match self.shared.protocol {
                Protocol::Http if self.answered.is_empty() => return Ok(None),
                Protocol::Http => (self.answered.split().freeze(), self.asked.remove(&ONLY)),
                Protocol::ZooKeeper => {
                    let Some(frame) = message::frame(&mut self.answered) else { return Ok(None) };
                    let first = std::mem::take(&mut self.first_reply);
                    let (number, event) = message::reply(&frame, first).ok_or(Cut)?;
                    (frame, event.or_else(|| self.asked.remove(&number)))
                }
            };
            let decision = match message {
                Some(message) => self.decide(When::Reply, &message).await,
                None => Decision::Pass,
            };
            match decision {
                Decision::Pass => return Ok(Some(bytes)),
                Decision::Swallow => {}
                Decision::Cut => return Err(Cut),
            }
        }
    }

    /// What is to become of a message: as the test says, when it waits for this one. Cutting all connections ends the wait.
    async fn decide(&mut self, when: When, message: &Message) -> Decision {
        let Some(decision) = self.shared.hand_over(when, message) else { return Decision::Pass };
        let cuts = self.cuts;
        tokio::select! {
            // A test that drops what it caught cuts the connection.
            decision = decision => decision.unwrap_or(Decision::Cut),
            _ = self.state.wait_for(|state| state.cuts != cuts) => Decision::Cut,
        }
    }
}

fn some(read: std::io::Result<usize>) -> Result<(), Cut> {
    if read.is_ok_and(|bytes| bytes > 0) { Ok(()) } else { Err(Cut) }
}
