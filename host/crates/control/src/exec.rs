//! `/exec`: runs one of the plugin's tools.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap},
};
use multer::Multipart;
use ochopod_files::Directory;
use ochopod_http::Reply;
use ochopod_lifecycle::Failure;
use ochopod_model::{reply::ExecReply, status::ProcessState};
use tempfile::TempDir;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use super::{
    ApiContext, body,
    reply::{self, ApiError},
    request_limiter::RequestPermit,
};

const SHELL: &str = "x-shell";
/// Time limit of a tool. The runner stops tools in time; this is the backstop.
const EXEC_TIMEOUT: Duration = Duration::from_mins(1);
const REPLY_MARGIN: Duration = Duration::from_secs(5);
/// Maximum length of the name of an uploaded file.
const MAX_NAME_BYTES: usize = 255;
/// Maximum number of files of a request.
const MAX_FILES: usize = 64;
/// Maximum number of tools that run at a time.
const MAX_RUNNING_TOOLS: usize = 8;

/// The tools of a pod's plugin, and the channel to their runner.
#[derive(Debug, Clone)]
pub struct Tools {
    names: watch::Sender<Vec<String>>,
    runs: mpsc::Sender<ExecRequest>,
    permits: Arc<Semaphore>,
}

/// Request to run an existing tool.
#[derive(Debug)]
pub struct ExecRequest {
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Uploaded files.
    pub uploads: Option<UploadDir>,
    /// Receives the result. A failure is one of the host or plugin: errors of the tool itself are output with a code.
    pub reply: oneshot::Sender<Result<ExecOutput, Failure>>,
    /// Held until the run is over, whether or not the client waits for it.
    _permit: OwnedSemaphorePermit,
}

/// Uploaded files in their own directory, which is removed with this (on another thread).
#[derive(Debug)]
pub struct UploadDir {
    path: PathBuf,
    directory: Option<TempDir>,
    /// The same, held open: files are created there even if its name is changed.
    pub(super) descriptor: Arc<Directory>,
    /// Names of the files.
    pub names: Vec<String>,
}

/// Result of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code, 0 for success by convention.
    pub code: i32,
    /// Lines of output without their ends.
    pub stdout: Vec<String>,
}

impl Tools {
    /// Returns tools of these names, whose runner receives from the channel.
    #[must_use]
    pub fn new(names: Vec<String>, runs: mpsc::Sender<ExecRequest>) -> Self {
        Self { names: watch::Sender::new(names), runs, permits: Arc::new(Semaphore::new(MAX_RUNNING_TOOLS)) }
    }

    /// Replaces the names, for all clones: the plugin was replaced.
    pub fn set_names(&self, names: Vec<String>) {
        self.names.send_replace(names);
    }
}

impl UploadDir {
    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.path
    }

    pub(super) fn new() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().to_owned();
        let descriptor = Directory::find_writable(&path)?;
        // Where plugins may write, they see the files anyway, and none of their links is followed.
        if !descriptor.is_guest_writable() {
            descriptor.expect_to_stay(&path)?;
        }
        let (directory, descriptor) = (Some(directory), Arc::new(descriptor));
        Ok(Self { path, directory, descriptor, names: Vec::new() })
    }

    async fn save(&mut self, name: String, content: Bytes) -> io::Result<()> {
        let (directory, file) = (Arc::clone(&self.descriptor), name.clone());
        let write = move || directory.create_new(OsStr::new(&file), 0o666)?.write_all(&content);
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
        self.names.push(name);
        Ok(())
    }
}

impl Drop for UploadDir {
    fn drop(&mut self) {
        let directory = self.directory.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(directory));
        }
    }
}

pub(super) async fn exec(
    context: &ApiContext,
    request_permit: &RequestPermit<'_>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Reply, ApiError> {
    let arrived = Instant::now();
    let line = body::header(headers, SHELL)?
        .ok_or_else(|| ApiError::bad_request("missing header X-Shell: expected tool args…"))?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let name = words.next().ok_or_else(|| ApiError::bad_request("empty header X-Shell: expected tool args…"))?;
    if !context.tools.names.borrow().contains(&name) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("unknown tool {name:?}")));
    }
    let boundary = boundary(headers)?;
    let whole = body::read(request_permit, (body, body::MAX_BODY_BYTES), arrived, EXEC_TIMEOUT).await?;
    let permit = Arc::clone(&context.tools.permits).try_acquire_owned();
    let permit = permit.map_err(|_| {
        ApiError::unavailable(format!("tool limit reached ({MAX_RUNNING_TOOLS} running): try again later"))
    })?;
    let uploads = match boundary {
        Some(boundary) => save(whole.bytes.clone(), boundary).await?,
        None => None,
    };
    drop(whole);
    if context.shutdown.is_cancelled() {
        return Err(ApiError::new(StatusCode::GONE, "pod is shutting down"));
    }
    if context.lifecycle_report.borrow().process == ProcessState::Dead {
        return Err(ApiError::new(StatusCode::GONE, "pod is dead"));
    }
    let (reply, result) = oneshot::channel();
    let run = ExecRequest { name, arguments: words.collect(), uploads, reply, _permit: permit };
    tracing::debug!(tool = run.name, "running tool");
    let result = timeout(EXEC_TIMEOUT + REPLY_MARGIN, async {
        context.tools.runs.send(run).await.ok()?;
        Some(result.await.ok())
    });
    match result.await {
        Ok(Some(Some(Ok(output)))) => {
            Ok(reply::json(StatusCode::OK, &ExecReply { code: output.code, stdout: output.stdout }))
        }
        Ok(Some(Some(Err(failure)))) => Ok(reply::failed(StatusCode::INTERNAL_SERVER_ERROR, failure)),
        Ok(Some(None)) if !context.shutdown.is_cancelled() => {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "tool failed without a result"))
        }
        Ok(_) => Err(ApiError::new(StatusCode::GONE, "pod is shutting down")),
        Err(_) => Err(ApiError::timed_out(EXEC_TIMEOUT, "tool may still be running")),
    }
}

/// Returns the boundary of a multipart body. Any other body is read and ignored.
fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    match body::header(headers, CONTENT_TYPE.as_str())?.map(multer::parse_boundary) {
        Some(Ok(boundary)) => Ok(Some(boundary)),
        Some(Err(multer::Error::NoBoundary)) => Err(ApiError::bad_request("multipart body without boundary")),
        Some(Err(_)) | None => Ok(None),
    }
}

async fn save(body: Bytes, boundary: String) -> Result<Option<UploadDir>, ApiError> {
    let malformed = |error: multer::Error| ApiError::bad_request(format!("malformed multipart body: {error}"));
    let whole = futures_util::stream::once(std::future::ready(Ok::<_, io::Error>(body)));
    let mut parts = Multipart::new(whole, boundary);
    let mut uploads: Option<UploadDir> = None;
    while let Some(part) = parts.next_field().await.map_err(malformed)? {
        let Some(file_name) = part.file_name() else { continue };
        let name = safe_name(part.name().filter(|name| !name.is_empty()).unwrap_or(file_name))?;
        let content = part.bytes().await.map_err(malformed)?;
        let mut saved = if let Some(saved) = uploads.take() {
            saved
        } else {
            let made = tokio::task::spawn_blocking(UploadDir::new).await;
            made.map_err(io::Error::other).flatten().map_err(|error| save_failed(&error))?
        };
        if saved.names.len() >= MAX_FILES {
            return Err(ApiError::bad_request(format!("too many files: limit is {MAX_FILES}")));
        }
        saved.save(name.clone(), content).await.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ApiError::bad_request(format!("duplicate file {name:?}")),
            _ => save_failed(&error),
        })?;
        uploads = Some(saved);
    }
    Ok(uploads)
}

fn save_failed(error: &io::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot save files: {error}"))
}

/// Returns the last part of a path if it is a valid file name.
fn safe_name(name: &str) -> Result<String, ApiError> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." || last.contains('\0') || last.len() > MAX_NAME_BYTES {
        return Err(ApiError::bad_request(format!("invalid file name {name:?}")));
    }
    Ok(last.to_owned())
}
