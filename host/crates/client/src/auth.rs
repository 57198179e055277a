//! The `Authorization` header of requests.

use std::time::{SystemTime, UNIX_EPOCH};

use ochopod_model::{ContentDigest, Digest, SignedRequest, Token, body_digest, wire::Credentials};

use super::client::LeaderRequest;

/// Credentials of a client.
#[derive(Clone)]
pub enum Auth {
    /// None: the pods have no token.
    None,
    /// The text of the token, sent with every request.
    Bearer(String),
    /// The token, used to sign requests to `/control`. Other requests carry no credentials.
    Signed(Box<Token>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer",
            Self::Signed(_) => "Signed",
        })
    }
}

impl Auth {
    /// Returns the header of a request that is not signed, if it has one.
    pub(crate) fn bearer(&self) -> Option<String> {
        match self {
            Self::Bearer(text) => Some(format!("Bearer {text}")),
            Self::None | Self::Signed(_) => None,
        }
    }

    /// Returns the header of a leader's request, if it has one.
    pub(crate) fn control(&self, request: &LeaderRequest<'_>) -> Option<String> {
        match self {
            Self::Signed(token) => Some(signature(token, request)),
            Self::None | Self::Bearer(_) => self.bearer(),
        }
    }
}

fn signature(token: &Token, request: &LeaderRequest<'_>) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (epoch, time) = (request.epoch.to_string(), since.as_micros().to_string());
    let number = request.number.map(|number| number.to_string()).unwrap_or_default();
    let body = body_digest(request.body.frames());
    let (key, generation) = (request.pod.as_str(), request.generation.map(Digest::as_str).unwrap_or_default());
    let signed = SignedRequest {
        method: "POST",
        path: &request.path,
        key,
        epoch: &epoch,
        number: &number,
        generation,
        view: request.view.map(ContentDigest::as_str).unwrap_or_default(),
        target: if request.is_targeted { key } else { "" },
        time: &time,
        body: &body,
    };
    Credentials::signature(key, &time, &body, &token.sign(&signed))
}
