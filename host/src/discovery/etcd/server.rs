//! One server, by etcd's v3 API.
//!
//! The client could spread what it asks over several, but would go on asking those that are down or frozen.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{Channel, Client, ConnectOptions, Error};
use hyper::Uri;
use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, ResolveServerName};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time;
use tonic::{Code, Status, transport::Endpoint};

use crate::discovery::{DiscoveryError, EtcdAddress, OpenError, Scheme, http::causes, tls};

use super::endpoints;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

/// How often a server that is waited for is asked whether it is still there, and how long it may take to say so. It takes
/// offence at anything below 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

type Connector = HttpsConnector<HttpConnector>;

pub(super) struct Server {
    /// `HOST:PORT`, for messages.
    name: String,
    endpoint: Endpoint,
    /// With TLS.
    connector: Option<Connector>,
    /// None before it is first asked, and after it did not answer.
    client: Mutex<Option<Client>>,
}

impl Server {
    /// All servers of a cluster. Files are read now, connections made when they are needed.
    pub(super) fn all(address: &EtcdAddress) -> Result<Vec<Self>, OpenError> {
        let endpoints = endpoints(address)?;
        let secure = endpoints.iter().any(|(scheme, _)| *scheme == Scheme::Https);
        let connector = if secure { Some(connector(address)?) } else { None };
        let server = |(scheme, uri): (Scheme, Uri)| {
            let name = uri.authority().map(ToString::to_string).unwrap_or_default();
            let endpoint = Endpoint::from(uri)
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .keep_alive_while_idle(false);
            let connector = connector.clone().filter(|_| scheme == Scheme::Https);
            Self { name, endpoint, connector, client: Mutex::default() }
        };
        Ok(endpoints.into_iter().map(server).collect())
    }

    /// Asks it. The connection is given up when it does not answer in time: it may be dead without anybody having told.
    pub(super) async fn ask<T, F>(
        &self,
        question: impl FnOnce(Client) -> F,
        limit: Duration,
    ) -> Result<T, DiscoveryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let answer = time::timeout(limit, async { question(self.client().await?).await }).await;
        answer.map_or_else(
            |_| {
                *self.slot() = None;
                Err(DiscoveryError::Unavailable(format!("no answer from etcd at {} within {limit:.1?}", self.name)))
            },
            |answer| answer.map_err(|error| self.failed(&error)),
        )
    }

    /// It connects once it is asked something, and again when that is needed.
    async fn client(&self) -> Result<Client, Error> {
        if let Some(client) = &*self.slot() {
            return Ok(client.clone());
        }
        let channel = match &self.connector {
            Some(connector) => self.endpoint.connect_with_connector_lazy(connector.clone()),
            None => self.endpoint.connect_lazy(),
        };
        // A server that has lost the others must say so: what it is waited for would never come.
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::from_channel(Channel::Tonic(channel), Some(options)).await?;
        *self.slot() = Some(client.clone());
        Ok(client)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &Error) -> DiscoveryError {
        let server = &self.name;
        let Error::GRpcStatus(status) = error else {
            return DiscoveryError::Unavailable(format!("etcd at {server}: {error}"));
        };
        if let Some(error) = causes(status).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return DiscoveryError::Refused(format!("TLS with etcd at {server}: {error}"));
        }
        judged(status, server)
    }
}

fn judged(status: &Status, server: &str) -> DiscoveryError {
    // Only what came of the connection has causes.
    let causes: Vec<_> = causes(status).skip(1).collect();
    if let Some(cause) = causes.last() {
        return DiscoveryError::Unavailable(format!("the connection to etcd at {server} broke: {cause}"));
    }
    let told = format!("etcd at {server}: {}", status.message());
    match status.code() {
        // A lease that is not found is one that expired just now.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::NotFound => {
            DiscoveryError::Unavailable(told)
        }
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => DiscoveryError::Unexpected(told),
        _ => DiscoveryError::Refused(told),
    }
}

fn connector(address: &EtcdAddress) -> Result<Connector, OpenError> {
    let mut config: ClientConfig = tls::config(&address.tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let names: Arc<dyn ResolveServerName + Send + Sync> = match &address.tls.server_name {
        None => Arc::new(DefaultServerNameResolver::default()),
        Some(name) => {
            let misformed = |_| OpenError::Address { address: name.clone(), expected: "the name of a server" };
            Arc::new(FixedServerNameResolver::new(ServerName::try_from(name.clone()).map_err(misformed)?))
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    Ok(HttpsConnector::new(tcp, config, true, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_somebody_has_to_change() {
        let judged = |code| judged(&Status::new(code, "text"), "h:1");
        let told = || "etcd at h:1: text".to_owned();
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::NotFound] {
            assert_eq!(judged(code), DiscoveryError::Unavailable(told()));
        }
        for code in [Code::PermissionDenied, Code::Unauthenticated, Code::InvalidArgument, Code::ResourceExhausted] {
            assert_eq!(judged(code), DiscoveryError::Refused(told()));
        }
        assert_eq!(judged(Code::Unknown), DiscoveryError::Unexpected(told()));
    }
}
