//! `/control/<task>[/<seconds>]`: a leader, or somebody with curl, asks the lifecycle to do something.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use hyper::{StatusCode, body::Incoming, header::HeaderMap};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    Pod,
    body::{self, Bodies},
    reply::{self, Refusal, Reply},
};
use crate::{
    cluster::{Digest, PodId, PostedView, wire},
    lifecycle::{Command, Fence, FenceError, LifecycleHandle, Request},
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
    pod: &Pod,
    bodies: &Bodies,
    task: &str,
    limit: Option<&str>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Reply, Refusal> {
    let task = Task::parse(task)?;
    let reply = attempt(pod, bodies, task, limit, headers, body).await.unwrap_or_else(Reply::from);
    tracing::debug!("/control/{} is answered {}", task.name(), reply.status().as_u16());
    pod.metrics.request(task.name(), reply.status().as_u16());
    Ok(reply)
}

async fn attempt(
    pod: &Pod,
    bodies: &Bodies,
    task: Task,
    limit: Option<&str>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Reply, Refusal> {
    let arrived = Instant::now();
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| {
        let expected = "expected seconds above 0 and at most 86400, such as 60 or 0.5";
        seconds(text, LONGEST_LIMIT).ok_or_else(|| Refusal::bad(format!("the limit is {text:?}, {expected}")))
    })?;
    let (epoch, order) = (number(headers, wire::EPOCH)?, number(headers, wire::ORDER)?);
    let generation = generation(headers)?;
    let (command, key) = {
        let body = bodies.read(body, arrived, limit).await?;
        let command = task.command(&body.bytes)?;
        let key = key(&command, &body.bytes);
        (command, key)
    };
    let request = Request { command, epoch, order, generation, limit };
    Ok(ask(&pod.id, &pod.fence, &pod.lifecycle, key, request, arrived).await)
}

/// The pod that a request is meant for, as far as it says.
fn key(command: &Command, body: &[u8]) -> Option<PodId> {
    #[derive(serde::Deserialize)]
    struct Meant {
        key: PodId,
    }
    match command {
        Command::Check(view) | Command::Ok(view) | Command::On(Some(view)) => Some(view.key.clone()),
        Command::Off => serde_json::from_slice(body).ok().map(|Meant { key }| key),
        Command::On(None) | Command::Kill | Command::Signal(_) => None,
    }
}

/// Admits a request for the pod with this key and has the lifecycle carry it out. Its limit counts from its arrival.
pub(crate) async fn ask(
    id: &PodId,
    fence: &Fence,
    lifecycle: &LifecycleHandle,
    key: Option<PodId>,
    request: Request,
    arrived: Instant,
) -> Reply {
    let limit = request.limit;
    match timeout_at(arrived + limit, admit(id, fence, key, request.epoch)).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => return refusal.into(),
        Err(_) => return Refusal::late(limit, "nothing was begun").into(),
    }
    let left = limit.saturating_sub(arrived.elapsed());
    let outcome = timeout_at(arrived + limit + SLACK, lifecycle.submit(Request { limit: left, ..request })).await;
    match outcome {
        Ok(outcome) => reply::outcome(outcome, limit),
        Err(_) => Refusal::late(limit, "it may have begun and go on").into(),
    }
}

/// Whether the request is meant for this pod, and by the leadership of now.
async fn admit(id: &PodId, fence: &Fence, key: Option<PodId>, epoch: Option<i64>) -> Result<(), Refusal> {
    if let Some(key) = key.filter(|key| key != id) {
        let error = format!("the request is meant for {:?}, this pod is {:?}", key.as_str(), id.as_str());
        return Err(Refusal::stranger(error, id));
    }
    let Some(epoch) = epoch else { return Ok(()) };
    fence.admit(epoch).await.map_err(|error| match error {
        FenceError::Superseded(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
        FenceError::Unknown(ref reason) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}: {reason}")),
    })
}

fn number<T: FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<T>, Refusal> {
    let Some(text) = body::header(headers, name)? else { return Ok(None) };
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Refusal::bad(format!("the header {name} is {text:?}, expected a number")))
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
