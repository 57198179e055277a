//! EC2 instance metadata, version 2: a session token first, then one item per request.

use std::{net::IpAddr, time::Duration};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{HeaderName, HeaderValue},
};
use tokio::time::{Instant, sleep};

use super::{
    Instance, LookUpError,
    error::Failure,
    http::{HttpReply, Server, is_busy},
};

const TOKEN_PATH: &str = "/latest/api/token";
const ITEM_PATH: &str = "/latest/meta-data/";
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// Lifetime of a token, which is used for a few requests only.
const TTL_SECONDS: HeaderValue = HeaderValue::from_static("60");
/// Time limit of all requests: if nothing answers, no answer arrives later.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Delay before the first look-up after one that failed; it doubles each time.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Time between look-ups of the public address, which changes when an elastic address is attached.
const MAX_REFRESH_INTERVAL: Duration = Duration::from_mins(5);
const REMEDY: &str =
    "--ip, --public and --node, or AWS_EC2_METADATA_DISABLED=true; containers need a hop limit of 2 on the instance";

/// The instance metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMetadata {
    /// URL, such as `http://169.254.169.254`.
    pub endpoint: String,
}

impl InstanceMetadata {
    /// Queries ID and addresses of the instance, within a second.
    pub(crate) async fn query(&self, deadline: Instant) -> Result<Instance, LookUpError> {
        let deadline = deadline.min(Instant::now() + TIMEOUT);
        let server = Server::plain(&self.endpoint).map_err(|failure| failure.at(&self.endpoint, REMEDY))?;
        let mut session = Session { server, token: HeaderValue::from_static(""), deadline };
        session.renew().await?;
        let id = session.item("instance-id", "an instance ID", instance_id).await?;
        let id = id.ok_or_else(|| session.failed("instance-id", &Failure::Status(StatusCode::NOT_FOUND)))?;
        let local = session.item("local-ipv4", "an IP address", ip).await?;
        let public = session.item("public-ipv4", "an IP address", ip).await?;
        Ok(Instance { id, local, public })
    }

    /// Calls `publish` with the public address of the instance after each successful look-up: soon if the first one failed,
    /// and then every few minutes. Never returns.
    pub async fn follow_public(&self, has_failed: bool, publish: impl Fn(Option<IpAddr>)) {
        let mut delay = if has_failed { MIN_REFRESH_INTERVAL } else { MAX_REFRESH_INTERVAL };
        loop {
            sleep(delay).await;
            delay = match self.query(Instant::now() + TIMEOUT).await {
                Ok(instance) => {
                    publish(instance.public);
                    MAX_REFRESH_INTERVAL
                }
                Err(error) => {
                    tracing::debug!(%error, "instance metadata unavailable");
                    (delay * 2).min(MAX_REFRESH_INTERVAL)
                }
            };
        }
    }
}

/// Requests with one token.
struct Session {
    server: Server,
    token: HeaderValue,
    deadline: Instant,
}

impl Session {
    /// Gets a new token.
    async fn renew(&mut self) -> Result<(), LookUpError> {
        let headers = HeaderMap::from_iter([(TOKEN_TTL, TTL_SECONDS)]);
        let answer = self.server.send(Method::PUT, TOKEN_PATH, headers, self.deadline, is_busy).await;
        let failed = |failure: Failure| failure.at(self.server.url(TOKEN_PATH), REMEDY);
        let answer = answer.map_err(failed)?;
        if answer.status != StatusCode::OK {
            return Err(failed(Failure::Status(answer.status)));
        }
        let token = HeaderValue::from_bytes(&answer.body).ok().filter(|token| !token.is_empty());
        let mut token = token.ok_or_else(|| failed(Failure::unexpected(b"", "a token")))?;
        token.set_sensitive(true);
        self.token = token;
        Ok(())
    }

    /// Returns an item; none if the instance does not have it.
    async fn item<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, LookUpError> {
        let mut answer = self.get(name).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.renew().await?;
            answer = self.get(name).await?;
        }
        match answer.status {
            StatusCode::OK => {
                let value = str::from_utf8(&answer.body).ok().and_then(|text| parse(text.trim()));
                let failure = || self.failed(name, &Failure::unexpected(&answer.body, expected));
                value.map(Some).ok_or_else(failure)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.failed(name, &Failure::Status(status))),
        }
    }

    async fn get(&self, name: &str) -> Result<HttpReply, LookUpError> {
        let headers = HeaderMap::from_iter([(TOKEN, self.token.clone())]);
        let path = format!("{ITEM_PATH}{name}");
        let answer = self.server.send(Method::GET, &path, headers, self.deadline, is_busy).await;
        answer.map_err(|failure| self.failed(name, &failure))
    }

    fn failed(&self, name: &str, failure: &Failure) -> LookUpError {
        failure.at(self.server.url(&format!("{ITEM_PATH}{name}")), REMEDY)
    }
}

/// Accepts `i-` and 8 to 17 hexadecimal digits: other clouds use the same address.
fn instance_id(text: &str) -> Option<String> {
    let digits = text.strip_prefix("i-")?;
    let is_id = (8..=17).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| text.to_owned())
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast())
}
