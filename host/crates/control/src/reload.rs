//! `/reload`: replaces the plugin. The sub-process keeps running.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, HeaderMap},
};
use ochopod_http::Reply;
use ochopod_lifecycle::Failure;
use ochopod_model::{reply::ReloadReply, status::ProcessState};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    ApiContext, body,
    exec::UploadDir,
    reply::{self, ApiError},
    request_limiter::RequestPermit,
};

/// Maximum size of a component.
const MAX_COMPONENT_BYTES: usize = 64 << 20;
/// Time limit for a component to arrive.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Number of bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;
const FILE_NAME: &str = "plugin.wasm";
const CONTENT_TYPES: [&str; 2] = ["application/wasm", "application/octet-stream"];

/// Requests to replace the plugin of a pod, one at a time. Clones share them.
#[derive(Debug, Clone)]
pub struct Reloads {
    requests: mpsc::Sender<ReloadRequest>,
    permit: Arc<Semaphore>,
}

/// Request to replace the plugin.
#[derive(Debug)]
pub struct ReloadRequest {
    /// The component; none to read the plugin's file again.
    pub component: Option<PostedComponent>,
    reply: oneshot::Sender<Result<ReloadReply, ReloadError>>,
    /// Held until the request is dropped, whether or not the client waits for it.
    _permit: OwnedSemaphorePermit,
}

/// Component that a client posted, in a file which is removed with this.
#[derive(Debug)]
pub struct PostedComponent {
    directory: UploadDir,
}

/// Rejection of a plugin, or failure to replace it. The last one stays in force.
#[derive(Debug)]
pub enum ReloadError {
    /// The plugin is invalid, or differs from the last one in what cannot be changed.
    Rejected(Failure),
    /// The host failed.
    Failed(Failure),
    /// The pod is dead or shutting down.
    Gone(&'static str),
}

impl Reloads {
    /// Creates the requests of a pod, and the receiver of the task that carries them out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (requests, receiver) = mpsc::channel(1);
        (Self { requests, permit: Arc::new(Semaphore::new(1)) }, receiver)
    }
}

impl ReloadRequest {
    /// Ends the request: another one may begin.
    pub fn finish(self, result: Result<ReloadReply, ReloadError>) {
        let Self { component, reply, _permit: permit } = self;
        drop((component, permit));
        // The client may be gone.
        _ = reply.send(result);
    }
}

impl PostedComponent {
    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.directory().join(FILE_NAME)
    }

    async fn create() -> io::Result<(Self, File)> {
        let created = tokio::task::spawn_blocking(|| {
            let directory = UploadDir::new()?;
            if directory.descriptor.is_guest_writable() {
                return Err(io::Error::other("directory for temporary files is writable by the plugin (--dir)"));
            }
            let file = directory.descriptor.create_new(OsStr::new(FILE_NAME), 0o600)?;
            Ok((Self { directory }, file))
        });
        created.await.map_err(io::Error::other)?
    }
}

/// Returns why the plugin of a pod is not replaced any longer.
fn gone(context: &ApiContext) -> Option<&'static str> {
    if context.shutdown.is_cancelled() {
        return Some("pod is shutting down");
    }
    let is_dead = context.lifecycle_report.borrow().process == ProcessState::Dead;
    is_dead.then_some("pod is dead")
}

pub(super) async fn reload(
    context: &ApiContext,
    request_permit: &RequestPermit<'_>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Reply, ApiError> {
    let has_component = !body.is_end_stream();
    if has_component {
        expect_component(headers, body)?;
    }
    let permit = Arc::clone(&context.reloads.permit).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::new(StatusCode::CONFLICT, "another reload is in progress"))?;
    let component = if has_component {
        tokio::select! {
            biased;
            () = request_permit.gave_way() => {
                return Err(ApiError::unavailable("body too slow, others were waiting: try again later"));
            }
            received = receive(body) => Some(received?),
        }
    } else {
        None
    };
    request_permit.complete();
    if let Some(reason) = gone(context) {
        return Err(ApiError::new(StatusCode::GONE, reason));
    }
    let (reply, result) = oneshot::channel();
    let request = ReloadRequest { component, reply, _permit: permit };
    let sent = context.reloads.requests.send(request).await;
    let result = match sent {
        Ok(()) => result.await.unwrap_or(Err(ReloadError::Gone("pod is shutting down"))),
        Err(_) => Err(ReloadError::Gone("pod is shutting down")),
    };
    match result {
        Ok(reloaded) => Ok(reply::json(StatusCode::OK, &reloaded)),
        Err(ReloadError::Rejected(failure)) => Ok(reply::failed(StatusCode::NOT_ACCEPTABLE, failure)),
        Err(ReloadError::Failed(failure)) => Ok(reply::failed(StatusCode::INTERNAL_SERVER_ERROR, failure)),
        Err(ReloadError::Gone(reason)) => Err(ApiError::new(StatusCode::GONE, reason)),
    }
}

/// Rejects a body that is declared as something else, or too large.
fn expect_component(headers: &HeaderMap, body: &Incoming) -> Result<(), ApiError> {
    let expected = CONTENT_TYPES.join(" or ");
    let content_type = body::header(headers, CONTENT_TYPE.as_str())?
        .ok_or_else(|| ApiError::bad_request(format!("missing header Content-Type: expected {expected}")))?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !CONTENT_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return Err(ApiError::bad_request(format!(
            "invalid header Content-Type {content_type:?}: expected {expected}"
        )));
    }
    if body.size_hint().lower() > MAX_COMPONENT_BYTES as u64 { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> ApiError {
    let error = format!("component too large: limit is {} MiB", MAX_COMPONENT_BYTES >> 20);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

/// Writes the body to a file, without keeping it in memory.
async fn receive(body: &mut Incoming) -> Result<PostedComponent, ApiError> {
    let failed =
        |error: io::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot save component: {error}"));
    let deadline = Instant::now() + UPLOAD_TIMEOUT;
    let (component, mut file) = PostedComponent::create().await.map_err(failed)?;
    let (mut buffer, mut received) = (BytesMut::new(), 0);
    loop {
        let frame = timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| ApiError::timed_out(UPLOAD_TIMEOUT, "component not received"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::bad_request(format!("cannot read body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > MAX_COMPONENT_BYTES {
            return Err(too_large());
        }
        buffer.extend_from_slice(&data);
        if buffer.len() >= WRITE_BYTES {
            file = write(file, buffer.split().freeze()).await.map_err(failed)?;
        }
    }
    if received == 0 {
        return Err(ApiError::bad_request("empty body: expected a component, or no body"));
    }
    write(file, buffer.freeze()).await.map_err(failed)?;
    Ok(component)
}

/// Writes on another thread: a disk may be slow.
async fn write(mut file: File, bytes: Bytes) -> io::Result<File> {
    tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| file)).await.map_err(io::Error::other)?
}
