//! `/exec`: runs one of the plugin's tools.

use std::{
    io,
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
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    fs::OpenOptions,
    io::AsyncWriteExt as _,
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    Pod,
    body::{self, Bodies},
    crowd::Place,
    reply::{self, Refusal, Reply},
};
use crate::{lifecycle::Failure, status::ProcessState};

const SHELL: &str = "x-shell";
/// How long a tool may take. The runner ends tools in time; this is the backstop.
const LIMIT: Duration = Duration::from_mins(1);
const SLACK: Duration = Duration::from_secs(5);
/// Longest name of an uploaded file, in bytes.
const LONGEST_NAME: usize = 255;
/// Most files that come with a request.
const FILES: usize = 64;
/// Most tools that run at a time.
const RUNS: usize = 8;

/// The tools of a pod's plugin, and where they are run.
#[derive(Debug, Clone)]
pub struct Tools {
    names: Vec<String>,
    runs: mpsc::Sender<ToolRun>,
    slots: Arc<Semaphore>,
}

/// One run of a tool that exists.
#[derive(Debug)]
pub struct ToolRun {
    /// The tool.
    pub name: String,
    /// The other words of the command line.
    pub arguments: Vec<String>,
    /// Files that came along.
    pub uploads: Option<Uploads>,
    /// Where the result goes. A failure is one of the machinery: what the tool itself says is output with a code.
    pub reply: oneshot::Sender<Result<ToolOutput, Failure>>,
    /// Held until the run is over, whether or not anybody waits for it.
    _slot: OwnedSemaphorePermit,
}

/// Files in a directory of their own, which is removed with this (on another thread).
#[derive(Debug)]
pub struct Uploads {
    path: PathBuf,
    directory: Option<TempDir>,
    /// Their names.
    pub names: Vec<String>,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// 0 for success, by custom.
    pub code: i32,
    /// Lines without their ends.
    pub stdout: Vec<String>,
}

impl Tools {
    /// Tools of these names, run by whoever receives.
    #[must_use]
    pub fn new(names: Vec<String>, runs: mpsc::Sender<ToolRun>) -> Self {
        Self { names, runs, slots: Arc::new(Semaphore::new(RUNS)) }
    }
}

impl Uploads {
    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.path
    }

    fn new() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { path: directory.path().to_owned(), directory: Some(directory), names: Vec::new() })
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let directory = self.directory.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(directory));
        }
    }
}

pub(super) async fn exec(
    pod: &Pod,
    bodies: &Bodies,
    place: &Place<'_>,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Reply, Refusal> {
    let arrived = Instant::now();
    let line =
        body::header(headers, SHELL)?.ok_or_else(|| Refusal::bad("the header X-Shell is missing: tool args…"))?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let name = words.next().ok_or_else(|| Refusal::bad("the header X-Shell is empty, expected: tool args…"))?;
    if !pod.tools.names.contains(&name) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no tool {name:?}")));
    }
    let boundary = boundary(headers)?;
    let whole = bodies.read(place, body, arrived, LIMIT).await?;
    let slot = Arc::clone(&pod.tools.slots).try_acquire_owned();
    let slot = slot.map_err(|_| Refusal::busy(format!("{RUNS} tools run already: try again")))?;
    let uploads = match boundary {
        Some(boundary) => save(whole.bytes.clone(), boundary).await?,
        None => None,
    };
    drop(whole);
    if pod.leaving.is_cancelled() {
        return Err(Refusal::new(StatusCode::GONE, "the pod is leaving"));
    }
    if pod.lifecycle_report.borrow().process == ProcessState::Dead {
        return Err(Refusal::new(StatusCode::GONE, "the pod is dead"));
    }
    let (reply, result) = oneshot::channel();
    let run = ToolRun { name, arguments: words.collect(), uploads, reply, _slot: slot };
    tracing::debug!("running the tool {}", run.name);
    let result = timeout(LIMIT + SLACK, async {
        pod.tools.runs.send(run).await.ok()?;
        result.await.ok()
    });
    match result.await {
        Ok(Some(Ok(output))) => {
            Ok(reply::value(StatusCode::OK, &json!({"code": output.code, "stdout": output.stdout})))
        }
        Ok(Some(Err(failure))) => Ok(reply::failed(StatusCode::INTERNAL_SERVER_ERROR, &failure)),
        Ok(None) => Err(Refusal::new(StatusCode::GONE, "the pod is leaving")),
        Err(_) => Err(Refusal::late(LIMIT, "it may go on")),
    }
}

/// The boundary of a multipart body. Any other body is read and ignored.
fn boundary(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    match body::header(headers, CONTENT_TYPE.as_str())?.map(multer::parse_boundary) {
        Some(Ok(boundary)) => Ok(Some(boundary)),
        Some(Err(multer::Error::NoBoundary)) => Err(Refusal::bad("the multipart body has no boundary")),
        Some(Err(_)) | None => Ok(None),
    }
}

async fn save(body: Bytes, boundary: String) -> Result<Option<Uploads>, Refusal> {
    let malformed = |error: multer::Error| Refusal::bad(format!("the multipart body is malformed: {error}"));
    let whole = futures_util::stream::once(std::future::ready(Ok::<_, io::Error>(body)));
    let mut parts = Multipart::new(whole, boundary);
    let mut uploads: Option<Uploads> = None;
    while let Some(part) = parts.next_field().await.map_err(malformed)? {
        let Some(file_name) = part.file_name() else { continue };
        let name = safe_name(part.name().filter(|name| !name.is_empty()).unwrap_or(file_name))?;
        let content = part.bytes().await.map_err(malformed)?;
        let mut saved = match uploads.take() {
            Some(saved) => saved,
            None => Uploads::new().map_err(|error| unsaved(&error))?,
        };
        if saved.names.len() >= FILES {
            return Err(Refusal::bad(format!("there are more than {FILES} files")));
        }
        let file = OpenOptions::new().write(true).create_new(true).open(saved.path.join(&name)).await;
        let mut file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Refusal::bad(format!("the file {name:?} is there twice")),
            _ => unsaved(&error),
        })?;
        file.write_all(&content).await.map_err(|error| unsaved(&error))?;
        file.flush().await.map_err(|error| unsaved(&error))?;
        saved.names.push(name);
        uploads = Some(saved);
    }
    Ok(uploads)
}

fn unsaved(error: &io::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the files cannot be saved: {error}"))
}

/// The last part of a path, if that can name a file.
fn safe_name(name: &str) -> Result<String, Refusal> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." || last.contains('\0') || last.len() > LONGEST_NAME {
        return Err(Refusal::bad(format!("{name:?} cannot name a file")));
    }
    Ok(last.to_owned())
}
