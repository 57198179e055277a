//! Messages of a proxy: requests, parsed as far as tests need it.

use bytes::{Bytes, BytesMut};
use hyper::Method;

/// Kind of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageKind {
    /// Opens a session.
    Open,
    /// Resumes a session over a new connection.
    Resume,
    /// Ends the session.
    Close,
    /// Ping of a client.
    Ping,
    /// Queries whether a node exists.
    Exists,
    /// Reads a node.
    Get,
    /// Lists a node's children.
    Children,
    /// Waits until the server has caught up.
    Sync,
    /// Creates a node.
    Create,
    /// Replaces a node's content.
    Set,
    /// Deletes a node.
    Delete,
    /// Within a commit: the node exists.
    Check,
    /// A commit: all of its steps, or none.
    Commit,
    /// Another ZooKeeper request, by its number.
    Other(i32),
    /// A watch's event. No request precedes it: it occurs as a reply only.
    Event,
    /// An HTTP request.
    Http(Method),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: MessageKind,
    /// The node that it concerns, chroot included, or the path of an HTTP request. Empty if it has none.
    pub path: String,
    /// The content that it writes.
    pub data: String,
    /// The steps of a commit.
    pub steps: Vec<Message>,
    /// Number of bytes on the wire; 0 for a step.
    pub length: usize,
}

impl Message {
    fn new(kind: MessageKind, path: String) -> Self {
        Self { kind, path, data: String::new(), steps: Vec::new(), length: 0 }
    }

    /// Returns whether it has this kind, and its node has a path that contains this.
    #[must_use]
    pub fn is(&self, kind: &MessageKind, within: &str) -> bool {
        self.kind == *kind && self.path.contains(within)
    }

    /// Returns whether it, or one of its steps, creates a node whose path contains this.
    #[must_use]
    pub fn creates(&self, within: &str) -> bool {
        self.any(&|message| message.is(&MessageKind::Create, within))
    }

    /// Returns whether it, or one of its steps, writes content with this prefix to a node of this name.
    #[must_use]
    pub fn writes(&self, name: &str, beginning: &str) -> bool {
        self.any(&|message| {
            matches!(message.kind, MessageKind::Create | MessageKind::Set)
                && message.path.rsplit('/').next() == Some(name)
                && message.data.starts_with(beginning)
        })
    }

    /// Returns whether it posts this task to a control port: `check`, `on`…
    #[must_use]
    pub fn posts(&self, task: &str) -> bool {
        let requested = self.path.strip_prefix("/control/").and_then(|rest| rest.split('/').next());
        matches!(self.kind, MessageKind::Http(_)) && requested == Some(task)
    }

    fn any(&self, holds: &dyn Fn(&Self) -> bool) -> bool {
        holds(self) || self.steps.iter().any(holds)
    }
}

/// Number that matches a reply to its request.
pub(super) type Number = i32;

/// The number of the first request of a connection, which has none of its own.
const CONNECT: Number = 0;
const EVENT: Number = -1;

/// Removes a complete frame from the buffer.
pub(super) fn frame(read: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(Fields(read).int()?).ok()? + 4;
    (read.len() >= length).then(|| read.split_to(length).freeze())
}

/// Parses a frame of a client, the first of its connection or a later one.
pub(super) fn request(frame: &[u8], first: bool) -> Option<(Number, Message)> {
    let mut fields = Fields(frame.get(4..)?);
    if first {
        let session = fields.skip(16)?.long()?;
        let kind = if session == 0 { MessageKind::Open } else { MessageKind::Resume };
        return Some((CONNECT, Message::new(kind, String::new())));
    }
    let (number, code) = (fields.int()?, fields.int()?);
    if code != 14 {
        return Some((number, fields.message(code)?));
    }
    let mut commit = Message::new(MessageKind::Commit, String::new());
    loop {
        let (code, done) = (fields.int()?, fields.byte()?);
        fields.skip(4)?;
        if done != 0 {
            return Some((number, commit));
        }
        commit.steps.push(fields.message(code)?);
    }
}

/// Parses a frame of a server: the number of the request that it answers, or the event that it reports.
pub(super) fn reply(frame: &[u8], first: bool) -> Option<(Number, Option<Message>)> {
    if first {
        return Some((CONNECT, None));
    }
    let mut fields = Fields(frame.get(4..)?);
    let number = fields.int()?;
    if number != EVENT {
        return Some((number, None));
    }
    let path = fields.skip(20)?.text()?;
    Some((number, Some(Message::new(MessageKind::Event, path))))
}

/// Reads the fields of a frame in order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn skip(&mut self, bytes: usize) -> Option<&mut Self> {
        self.0 = self.0.get(bytes..)?;
        Some(self)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn int(&mut self) -> Option<i32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*bytes))
    }

    fn long(&mut self) -> Option<i64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i64::from_be_bytes(*bytes))
    }

    /// Returns a text, or any other bytes; empty if it is missing.
    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.int()?).unwrap_or(0);
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Returns the fields that follow this operation code.
    fn message(&mut self, code: i32) -> Option<Message> {
        let kind = match code {
            1 | 15 | 19 => MessageKind::Create,
            2 => MessageKind::Delete,
            3 => MessageKind::Exists,
            4 => MessageKind::Get,
            5 => MessageKind::Set,
            8 | 12 => MessageKind::Children,
            9 => MessageKind::Sync,
            11 => return Some(Message::new(MessageKind::Ping, String::new())),
            13 => MessageKind::Check,
            -11 => return Some(Message::new(MessageKind::Close, String::new())),
            other => return Some(Message::new(MessageKind::Other(other), String::new())),
        };
        let mut message = Message::new(kind, self.text()?);
        match message.kind {
            MessageKind::Create => {
                message.data = self.text()?;
                for _ in 0..self.int()? {
                    self.skip(4)?.text()?;
                    self.text()?;
                }
                self.skip(4)?;
            }
            MessageKind::Set => {
                message.data = self.text()?;
                self.skip(4)?;
            }
            MessageKind::Delete | MessageKind::Check => {
                self.skip(4)?;
            }
            _ => {}
        }
        Some(message)
    }
}

/// Removes a complete HTTP request from the buffer. Its body has a length, or is chunked.
pub(super) fn http(read: &mut BytesMut) -> Option<(Bytes, Message)> {
    let head = find(read, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(read.get(..head)?).into_owned();
    let mut words = text.split(' ');
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let message = Message::new(MessageKind::Http(method), words.next()?.to_owned());
    let header = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = match header("transfer-encoding") {
        Some(_) => chunks(read.get(head..)?)?,
        None => header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
    };
    (read.len() >= head + body).then(|| (read.split_to(head + body).freeze(), message))
}

/// Returns the length of a chunked body, once it is complete.
fn chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = body.get(at..)?;
        let line = find(rest, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?.trim(), 16).ok()?;
        at += line + 2 + size + 2;
        if size == 0 {
            return (body.len() >= at).then_some(at);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
