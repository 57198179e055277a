//! `/exec`: runs one of the plugin's tools.

use std::{path::Path, time::Duration};

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
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Pod, body,
    reply::{self, Refusal, Reply},
};
use crate::lifecycle::Failure;

const SHELL: &str = "x-shell";
/// How long a tool, or a client that sends files, may take. The runner ends tools in time; this is the backstop.
const LIMIT: Duration = Duration::from_mins(1);
const SLACK: Duration = Duration::from_secs(5);
/// Longest name of an uploaded file, in bytes.
const LONGEST_NAME: usize = 255;

/// The tools of a pod's plugin, and where they are run.
#[derive(Debug, Clone)]
pub struct Tools {
    names: Vec<String>,
    runs: mpsc::Sender<ToolRun>,
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
}

/// Files in a directory of their own, which is removed with this.
#[derive(Debug)]
pub struct Uploads {
    directory: TempDir,
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
        Self { names, runs }
    }
}

impl Uploads {
    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

pub(super) async fn exec(pod: &Pod, headers: &HeaderMap, body: &mut Incoming) -> Result<Reply, Refusal> {
    let line =
        body::header(headers, SHELL)?.ok_or_else(|| Refusal::bad("the header X-Shell is missing: tool args…"))?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let name = words.next().ok_or_else(|| Refusal::bad("the header X-Shell is empty, expected: tool args…"))?;
    if !pod.tools.names.contains(&name) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no tool {name:?}")));
    }
    let Ok(uploads) = timeout(LIMIT, receive(headers, body)).await else {
        return Ok(reply::timed_out(LIMIT, "nothing was run"));
    };
    let (reply, result) = oneshot::channel();
    let run = ToolRun { name, arguments: words.collect(), uploads: uploads?, reply };
    tracing::info!("running the tool {}", run.name);
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
        Err(_) => Ok(reply::timed_out(LIMIT, "it may go on")),
    }
}

/// Saves the files of a multipart body. Any other body is read and ignored.
async fn receive(headers: &HeaderMap, body: &mut Incoming) -> Result<Option<Uploads>, Refusal> {
    let boundary = body::header(headers, CONTENT_TYPE.as_str())?.map(multer::parse_boundary);
    let body = body::read(body).await?;
    match boundary {
        Some(Ok(boundary)) => save(body, boundary).await,
        Some(Err(multer::Error::NoBoundary)) => Err(Refusal::bad("the multipart body has no boundary")),
        Some(Err(_)) | None => Ok(None),
    }
}

async fn save(body: Bytes, boundary: String) -> Result<Option<Uploads>, Refusal> {
    let malformed = |error: multer::Error| Refusal::bad(format!("the multipart body is malformed: {error}"));
    let whole = futures_util::stream::once(std::future::ready(Ok::<_, std::io::Error>(body)));
    let mut parts = Multipart::new(whole, boundary);
    let mut uploads: Option<Uploads> = None;
    while let Some(part) = parts.next_field().await.map_err(malformed)? {
        let Some(file_name) = part.file_name() else { continue };
        let name = safe_name(part.name().filter(|name| !name.is_empty()).unwrap_or(file_name))?;
        let content = part.bytes().await.map_err(malformed)?;
        let mut saved = match uploads.take() {
            Some(saved) => saved,
            None => Uploads { directory: tempfile::tempdir().map_err(|error| unsaved(&error))?, names: Vec::new() },
        };
        if saved.names.contains(&name) {
            return Err(Refusal::bad(format!("the file {name:?} is there twice")));
        }
        let path = saved.directory.path().join(&name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).await.map_err(|error| unsaved(&error))?;
        file.write_all(&content).await.map_err(|error| unsaved(&error))?;
        file.flush().await.map_err(|error| unsaved(&error))?;
        saved.names.push(name);
        uploads = Some(saved);
    }
    Ok(uploads)
}

fn unsaved(error: &std::io::Error) -> Refusal {
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
