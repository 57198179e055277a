//! File with a user's name and password.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::header::HeaderValue;
use ochopod_tls::pem;

use super::RegistryConfigError;

const EXPECTED: &str = "one line, user:password";

/// A file with `user:password`.
#[derive(Debug, Clone)]
pub(super) struct CredentialsFile(PathBuf);

/// A user. Without `Debug`, so that the password is in no log.
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
}

impl CredentialsFile {
    /// Checks that the file is usable.
    pub(super) fn new(path: &Path) -> Result<Self, RegistryConfigError> {
        let file = Self(path.to_owned());
        file.read().map(|_| file)
    }

    /// Reads the file, whose password may have changed.
    pub(super) fn read(&self) -> Result<User, RegistryConfigError> {
        let Self(path) = self;
        let unusable = |reason: String| RegistryConfigError::File { path: path.clone(), reason, expected: EXPECTED };
        let text = pem::text(path).map_err(|error| unusable(error.to_string()))?;
        User::parse(&text).ok_or_else(|| unusable("invalid content (hidden)".to_owned()))
    }
}

impl User {
    fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (name, password) = line.split_once(':')?;
        let is_whole = !name.is_empty() && !password.is_empty() && !line.contains(char::is_control);
        is_whole.then(|| Self { name: name.to_owned(), password: password.to_owned() })
    }

    /// Returns the value of the header `Authorization`, marked as sensitive.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let encoded = BASE64_STANDARD.encode(format!("{}:{}", self.name, self.password).as_bytes());
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn user_is_one_line_split_at_the_first_colon() {
        let parsed = |text: &str| User::parse(text).map(|user| (user.name, user.password));
        let user = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        for (text, expected) in [
            ("me:pass:word", user("me", "pass:word")),
            ("me:secret\n", user("me", "secret")),
            ("me:secret\r\n", user("me", "secret")),
            ("me: spaces count ", user("me", " spaces count ")),
            ("", None),
            ("me", None),
            ("me:", None),
            (":secret", None),
            ("me:secret\n\n", None),
            ("me:secret\nyou:other\n", None),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn file_is_read_each_time_and_errors_hide_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etcd");
        let error = CredentialsFile::new(&path).unwrap_err().to_string();
        assert!(error.contains("etcd: No such file") && error.contains("expected one line, user:password"), "{error}");
        fs::write(&path, "me:first\n").unwrap();
        let file = CredentialsFile::new(&path).unwrap();
        fs::write(&path, "me:second\n").unwrap();
        assert_eq!(file.read().map(|user| user.password), Ok("second".to_owned()));
        fs::write(&path, "hunter2\n").unwrap();
        let error = file.read().map(|user| user.name).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn basic_credentials_are_in_base64_and_sensitive() {
        let basic = User::parse("Aladdin:open sesame").and_then(|user| user.basic()).unwrap();
        assert_eq!(basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(basic.is_sensitive());
    }
}
