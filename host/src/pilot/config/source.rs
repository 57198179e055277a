//! Where the text of a configuration comes from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::settings::Env;

/// What names the configuration when no flag does.
const VARIABLE: &str = "CONTAINERPILOT";
/// Most bytes of a file.
const LARGEST: u64 = 1024 * 1024;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither the flag nor the variable says anything.
    #[error("-config flag is required, or ${VARIABLE}: file://PATH, PATH or the configuration itself")]
    Required,
    /// There is no such file.
    #[error("no such file: {}", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is too large for what it should be.
    #[error("{} has more than {LARGEST} bytes", .0.display())]
    Large(PathBuf),
    /// The bytes are no text.
    #[error("{of} is not UTF-8 from byte {from} on")]
    NotText {
        /// The file or the variable.
        of: String,
        /// How many bytes are text.
        from: usize,
    },
}

/// Where the text of a configuration is. It can be read again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// Here.
    Text(String),
}

impl Source {
    /// What `-config` says, or else `$CONTAINERPILOT`: `file://PATH`, a path, or the text itself, which is told from a path by
    /// how it begins or by having more lines than one.
    ///
    /// # Errors
    /// [`SourceError::Required`] when neither says anything; [`SourceError::NotText`] when the variable is no text.
    pub fn find(flag: Option<&str>, env: &Env) -> Result<Self, SourceError> {
        let given = match flag {
            Some(given) => given,
            None => match env.iter().find(|(name, _)| *name == VARIABLE) {
                Some((_, value)) => text(format!("${VARIABLE}"), value.as_encoded_bytes())?,
                None => "",
            },
        };
        match given.trim_start() {
            "" => Err(SourceError::Required),
            start => Ok(match start.strip_prefix("file://") {
                Some(path) => Self::File(path.into()),
                None if is_text(start) => Self::Text(given.to_owned()),
                None => Self::File(given.into()),
            }),
        }
    }

    /// The text, as it is now.
    ///
    /// # Errors
    /// Files may be missing, unreadable, too large or no text.
    pub fn read(&self) -> Result<String, SourceError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let bytes = content(path)?;
                text(path.display().to_string(), &bytes).map(str::to_owned)
            }
        }
    }
}

/// Whether it cannot be meant as a path.
fn is_text(start: &str) -> bool {
    start.starts_with(['{', '[', '<', '"', '\'']) || start.starts_with("/*") || start.contains('\n')
}

fn content(path: &Path) -> Result<Vec<u8>, SourceError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing(path.to_owned()),
        _ => SourceError::Read { path: path.to_owned(), error },
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST { Err(SourceError::Large(path.to_owned())) } else { Ok(bytes) }
}

fn text(of: String, bytes: &[u8]) -> Result<&str, SourceError> {
    str::from_utf8(bytes).map_err(|error| SourceError::NotText { of, from: error.valid_up_to() })
}
