//! `/control/<task>[/<seconds>]`: a leader, or somebody with curl, asks the lifecycle to do something.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::{StatusCode, body::Incoming, header::HeaderMap};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    Pod,
    access::{self, Authority},
    body,
    crowd::Place,
    reply::{self, Refusal, Reply},
    server::Served,
};
use crate::{
    cluster::{Digest, PostedView, wire},
    lifecycle::{Command, FenceError, Request},
    settings::seconds,
};

const DEFAULT_LIMIT: Duration = Duration::from_mins(1);
const LONGEST_LIMIT: Duration = Duration::from_hours(24);
/// How much longer than the limit the lifecycle may take to say that it has passed.
const SLACK: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Check,
    On,
    Off,
    Ok,
    Kill,
    Signal,
}

/// Answers a control request, and counts it.
pub(super) async fn control(
    served: &Served,
    place: &Place<'_>,
    task: &str,
    limit: Option<&str>,
    authority: Authority,
    (headers, body): (&HeaderMap, &mut Incoming),
) -> Result<Reply, Refusal> {
    let task = Task::parse(task)?;
    let reply = attempt(served, place, task, limit, authority, (headers, body)).await.unwrap_or_else(Reply::from);
    tracing::debug!("/control/{} is answered {}", task.name(), reply.status().as_u16());
    served.pod.metrics.request(task.name(), reply.status().as_u16());
    Ok(reply)
}

async fn attempt(
    served: &Served,
    place: &Place<'_>,
    task: Task,
    limit: Option<&str>,
    authority: Authority,
    (headers, body): (&HeaderMap, &mut Incoming),
) -> Result<Reply, Refusal> {
    let pod = &*served.pod;
    let arrived = Instant::now();
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| {
        let expected = "expected seconds above 0 and at most 86400, such as 60 or 0.5";
        seconds(text, LONGEST_LIMIT).ok_or_else(|| Refusal::bad(format!("the limit is {text:?}, {expected}")))
    })?;
    let epoch = epoch(headers)?;
    let generation = generation(headers)?;
    let command = {
        let body = served.bodies.read(place, body, arrived, limit).await?;
        if let Authority::Signature(signature) = authority {
            signature.covers(&body.bytes)?;
            served.obeyed.note(signature, access::stale(SystemTime::now()))?;
        }
        task.command(&body.bytes)?
    };
    let admitted = timeout_at(arrived + limit, admit(pod, &command, epoch)).await;
    admitted.map_err(|_| Refusal::late(limit, "nothing was begun"))??;
    let left = limit.saturating_sub(arrived.elapsed());
    let request = Request { command, epoch, generation, limit: left };
    let outcome = timeout_at(arrived + limit + SLACK, pod.lifecycle.submit(request)).await;
    match outcome {
        Ok(outcome) => Ok(reply::outcome(outcome, limit)),
        Err(_) => Err(Refusal::late(limit, "it may have begun and go on")),
    }
}

/// Whether the request is meant for this pod, and by the leadership of now.
async fn admit(pod: &Pod, command: &Command, epoch: Option<i64>) -> Result<(), Refusal> {
    let view = match command {
        Command::Check(view) | Command::Ok(view) | Command::On(Some(view)) => Some(view),
        _ => None,
    };
    if let Some(view) = view.filter(|view| view.key != pod.id) {
        let error = format!("the view is meant for {:?}, this pod is {:?}", view.key.as_str(), pod.id.as_str());
        return Err(Refusal::stranger(error, &pod.id));
    }
    let Some(epoch) = epoch else { return Ok(()) };
    pod.fence.admit(epoch).await.map_err(|error| match error {
        FenceError::Superseded(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
        FenceError::Unknown(ref reason) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}: {reason}")),
    })
}

fn epoch(headers: &HeaderMap) -> Result<Option<i64>, Refusal> {
    let Some(text) = body::header(headers, wire::EPOCH)? else { return Ok(None) };
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    let refusal = || Refusal::bad(format!("the header {} is {text:?}, expected a number", wire::EPOCH));
    number.map(Some).ok_or_else(refusal)
}

fn generation(headers: &HeaderMap) -> Result<Option<Digest>, Refusal> {
    match body::header(headers, wire::GENERATION)? {
        Some("") => Err(Refusal::bad(format!("the header {} is empty", wire::GENERATION))),
        generation => Ok(generation.map(Digest::from)),
    }
}

impl Task {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let all = [Self::Check, Self::On, Self::Off, Self::Ok, Self::Kill, Self::Signal];
        let known = all.into_iter().find(|task| task.name() == text);
        known.ok_or_else(|| Refusal::bad(format!("the task is {text:?}, expected check, on, off, ok, kill or signal")))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::On => "on",
            Self::Off => "off",
            Self::Ok => "ok",
            Self::Kill => "kill",
            Self::Signal => "signal",
        }
    }

    /// The task with its body. `off` and `kill` take any JSON, for leaders of the Python SDK post the view to them too.
    fn command(self, body: &Bytes) -> Result<Command, Refusal> {
        let view = || PostedView::parse(body).map_err(|error| Refusal::bad(error.to_string()));
        let json = || -> Result<Option<Value>, Refusal> {
            if body.is_empty() {
                return Ok(None);
            }
            let json = serde_json::from_slice(body);
            json.map(Some).map_err(|error| Refusal::bad(format!("the body is not JSON: {error}")))
        };
        Ok(match self {
            Self::Check => Command::Check(view()?),
            Self::On if body.is_empty() => Command::On(None),
            Self::On => Command::On(Some(view()?)),
            Self::Off => json().map(|_| Command::Off)?,
            Self::Ok => Command::Ok(view()?),
            Self::Kill => json().map(|_| Command::Kill)?,
            Self::Signal => Command::Signal(json()?),
        })
    }
}
