//! Clients that send requests without a pause.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, ensure};
use ochopod_tests::Result;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
};

/// Replies and failures so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Number of replies with status 200.
    pub(crate) replies: u64,
    /// Failed requests.
    pub(crate) failures: Vec<String>,
    /// Number of replies by the pod that answered: `CLUSTER-SEQ`.
    pub(crate) by_pod: BTreeMap<String, u64>,
}

/// Half of the clients keep their connection, as long as the server does.
pub(crate) struct Load {
    record: Arc<Mutex<Record>>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts clients of an address.
    pub(crate) fn start(address: &str, clients: usize) -> Self {
        let mut load = Self { record: Arc::default(), clients: JoinSet::new() };
        for client in 0..clients {
            let (record, address) = (Arc::clone(&load.record), address.to_owned());
            load.clients.spawn(async move {
                let mut client = Client { address, keep: client % 2 == 0, stream: None };
                loop {
                    let reply = client.request().await;
                    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
                    match reply {
                        Ok(pod) => {
                            record.replies += 1;
                            *record.by_pod.entry(pod).or_default() += 1;
                        }
                        Err(error) => {
                            client.stream = None;
                            record.failures.push(format!("{error:#}"));
                        }
                    }
                }
            });
        }
        load
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets which pods answered so far.
    pub(crate) fn forget_pods(&self) {
        self.record().by_pod.clear();
    }

    /// Checks that no request failed.
    pub(crate) fn check(&self, step: &str) -> Result {
        let record = self.record();
        eprintln!("{step}: {} replies, {} failures, {:?}", record.replies, record.failures.len(), record.by_pod);
        ensure!(record.replies > 0, "{step}: no reply");
        ensure!(
            record.failures.is_empty(),
            "{step}: {} failures, {:?}",
            record.failures.len(),
            record.failures.first()
        );
        Ok(())
    }
}

struct Client {
    address: String,
    keep: bool,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Sends one request, and returns the header `X-Pod` of the reply.
    async fn request(&mut self) -> Result<String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(&self.address).await.context("connect")?),
        };
        let connection = if self.keep { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: web\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("send")?;
        let (mut length, mut pod, mut keep) = (0, String::new(), self.keep);
        for number in 0.. {
            let mut line = String::new();
            ensure!(stream.read_line(&mut line).await.context("receive")? > 0, "no reply");
            let line = line.trim_end();
            if number == 0 {
                ensure!(line.starts_with("HTTP/1.1 200"), "{line}");
            }
            match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
                Some((name, value)) if name == "content-length" => length = value.parse()?,
                Some((name, value)) if name == "x-pod" => value.clone_into(&mut pod),
                Some((name, "close")) if name == "connection" => keep = false,
                _ => {}
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.context("receive body")?;
        ensure!(body.ends_with(b"</html>\n"), "incomplete page");
        self.stream = keep.then_some(stream);
        Ok(pod)
    }
}
