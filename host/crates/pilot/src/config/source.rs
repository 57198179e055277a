//! Sources of a configuration's text.

use std::{
    io,
    path::{Path, PathBuf},
};

use ochopod_environment::Env;
use ochopod_files as files;

/// Variable that names the configuration unless a flag does.
const VARIABLE: &str = "CONTAINERPILOT";
/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Cause of a configuration that cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigSourceError {
    /// Neither the flag nor the variable is set.
    #[error("-config flag is required, or ${VARIABLE}: file://PATH, PATH or the configuration itself")]
    Required,
    /// The file does not exist.
    #[error("no such file: {}", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause of the failure.
        error: io::Error,
    },
    /// The file is too large for a configuration.
    #[error("{}: file too large, limit is {MAX_BYTES} bytes", .0.display())]
    Large(PathBuf),
    /// The text is not valid UTF-8.
    #[error("{of}: invalid UTF-8 at byte {from}")]
    NotText {
        /// The file or the variable.
        of: String,
        /// Number of valid bytes before it.
        from: usize,
    },
}

/// Source of a configuration's text, which can be read repeatedly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl ConfigSource {
    /// Returns the source that `-config` names, or else `$CONTAINERPILOT`: `file://PATH`, a path, or the text itself, which
    /// differs from a path in its first character or in having more than one line.
    ///
    /// # Errors
    /// [`ConfigSourceError::Required`] if neither is set; [`ConfigSourceError::NotText`] if the variable is not UTF-8.
    pub fn find(flag: Option<&str>, env: &Env) -> Result<Self, ConfigSourceError> {
        let given = match flag {
            Some(given) => given,
            None => match env.iter().find(|(name, _)| *name == VARIABLE) {
                Some((_, value)) => text(format!("${VARIABLE}"), value.as_encoded_bytes())?,
                None => "",
            },
        };
        match given.trim_start() {
            "" => Err(ConfigSourceError::Required),
            start => Ok(match start.strip_prefix("file://") {
                Some(path) => Self::File(path.into()),
                None if is_text(start) => Self::Text(given.to_owned()),
                None => Self::File(given.into()),
            }),
        }
    }

    /// Reads the current text.
    ///
    /// # Errors
    /// Files may be missing, unreadable, too large or not UTF-8.
    pub fn read(&self) -> Result<String, ConfigSourceError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let bytes = content(path)?;
                text(path.display().to_string(), &bytes).map(str::to_owned)
            }
        }
    }
}

/// Returns whether it starts like a configuration rather than a path.
fn is_text(start: &str) -> bool {
    start.starts_with(['{', '[', '<', '"', '\'']) || start.starts_with("/*") || start.contains('\n')
}

fn content(path: &Path) -> Result<Vec<u8>, ConfigSourceError> {
    files::read(path, MAX_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConfigSourceError::Missing(path.to_owned()),
        io::ErrorKind::FileTooLarge => ConfigSourceError::Large(path.to_owned()),
        _ => ConfigSourceError::Read { path: path.to_owned(), error },
    })
}

fn text(of: String, bytes: &[u8]) -> Result<&str, ConfigSourceError> {
    str::from_utf8(bytes).map_err(|error| ConfigSourceError::NotText { of, from: error.valid_up_to() })
}
