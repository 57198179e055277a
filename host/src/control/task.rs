//! `/control/<task>[/<seconds>]`: a leader, or somebody with curl, asks the lifecycle to do something.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::{StatusCode, body::Incoming, header::HeaderMap};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    access::{self, Authority},
    body,
    crowd::Place,
    reply::{self, Refusal, Reply},
    server::Served,
};
use crate::{
    cluster::{Digest, PodId, PostedView, json, wire},
    lifecycle::{Command, Fence, FenceError, LifecycleHandle, Outcome, Request},
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
    let epoch = number(headers, wire::EPOCH)?;
    let number = number(headers, wire::NUMBER)?;
    let generation = generation(headers)?;
    let (command, meant) = {
        let body = served.bodies.read(place, body, arrived, limit).await?;
        if let Authority::Signature(signature) = authority {
            signature.covers(&body.bytes)?;
            served.obeyed.note(signature, access::stale(SystemTime::now()))?;
        }
        task.command(&body.bytes)?
    };
    let request = Request { command, epoch, number, generation, limit };
    Ok(ask(&pod.id, &pod.fence, &pod.lifecycle, meant.as_ref(), request, arrived).await)
}

/// Admits a request and has the lifecycle carry it out. Its limit counts from its arrival; `meant` is the pod it is for, if
/// it tells.
pub(crate) async fn ask(
    id: &PodId,
    fence: &Fence,
    lifecycle: &LifecycleHandle,
    meant: Option<&PodId>,
    request: Request,
    arrived: Instant,
) -> Reply {
    let limit = request.limit;
    loop {
        match timeout_at(arrived + limit, admit(id, fence, meant, request.epoch)).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => return refusal.into(),
            Err(_) => return Refusal::late(limit, "nothing was begun").into(),
        }
        let left = limit.saturating_sub(arrived.elapsed());
        let request = Request { limit: left, ..request.clone() };
        match timeout_at(arrived + limit + SLACK, lifecycle.submit(request)).await {
            // It waited for so long that the admission does not count any more.
            Ok(Outcome::Lapsed) => {}
            Ok(outcome) => return reply::outcome(outcome, limit),
            Err(_) => return Refusal::late(limit, "it may have begun and go on").into(),
        }
    }
}

/// Whether the request is meant for this pod, and by the leadership of now.
async fn admit(id: &PodId, fence: &Fence, meant: Option<&PodId>, epoch: Option<i64>) -> Result<(), Refusal> {
    if let Some(meant) = meant.filter(|meant| *meant != id) {
        let error = format!("the view is meant for {:?}, this pod is {:?}", meant.as_str(), id.as_str());
        return Err(Refusal::stranger(error, id));
    }
    let Some(epoch) = epoch else { return Ok(()) };
    fence.admit(epoch).await.map_err(|error| match error {
        FenceError::Superseded(_) => Refusal::new(StatusCode::CONFLICT, error.to_string()),
        FenceError::Unknown(ref reason) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}: {reason}")),
    })
}

fn number<N: FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<N>, Refusal> {
    let Some(text) = body::header(headers, name)? else { return Ok(None) };
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    let refusal = || Refusal::bad(format!("the header {name} is {text:?}, expected a number"));
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

    /// The task with its body, and the pod that is meant if that tells. `off` and `kill` take any JSON: leaders post the
    /// view to them too.
    fn command(self, body: &Bytes) -> Result<(Command, Option<PodId>), Refusal> {
        let view = |command: fn(PostedView) -> Command| {
            let view = PostedView::parse(body).map_err(|error| Refusal::bad(error.to_string()))?;
            let meant = view.key.clone();
            Ok((command(view), Some(meant)))
        };
        let json = || -> Result<Option<Value>, Refusal> {
            if body.is_empty() {
                return Ok(None);
            }
            json::read(body).map(Some).map_err(|error| Refusal::bad(format!("the body is not JSON: {error}")))
        };
        let key = |json: Option<Value>| json?.get("key")?.as_str().map(PodId::from);
        match self {
            Self::Check => view(Command::Check),
            Self::On if body.is_empty() => Ok((Command::On(None), None)),
            Self::On => view(|view| Command::On(Some(view))),
            Self::Off => Ok((Command::Off, key(json()?))),
            Self::Ok => view(Command::Ok),
            Self::Kill => Ok((Command::Kill, key(json()?))),
            Self::Signal => Ok((Command::Signal(json()?), None)),
        }
    }
}
