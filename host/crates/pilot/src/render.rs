//! Renders the file of a backend: next to its destination, then renamed, so that no reader sees half of it.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use ochopod_files as files;
use ochopod_template::{self as template, Data, TemplateError};
use tokio::{task::spawn_blocking, time::timeout};

use super::config::{BackendTemplate, ConfigSource, ConfigSourceError};

/// Time limit for reading, rendering and writing, in total.
const RENDER_TIMEOUT: Duration = Duration::from_secs(10);
/// Permissions of a new file.
const DEFAULT_MODE: u32 = 0o644;

/// Reason why a file was not rendered. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenderError {
    #[error(transparent)]
    Source(#[from] ConfigSourceError),
    #[error("{}: {error}", path.display())]
    Template { path: PathBuf, error: TemplateError },
    #[error("cannot write {}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("not rendered within {0:?}: slow file or template")]
    Late(Duration),
    #[error("the task that renders it failed")]
    Failed,
}

/// Renders a file on another thread.
///
/// # Cancellation safety
/// Dropping the future does not stop the rendering.
pub(super) async fn render(
    template: BackendTemplate,
    data: Data,
    variables: BTreeMap<String, String>,
) -> Result<(), RenderError> {
    let rendering = spawn_blocking(move || render_now(&template, &data, &variables));
    match timeout(RENDER_TIMEOUT, rendering).await {
        Ok(Ok(rendered)) => rendered,
        Ok(Err(_)) => Err(RenderError::Failed),
        Err(_) => Err(RenderError::Late(RENDER_TIMEOUT)),
    }
}

fn render_now(
    template: &BackendTemplate,
    data: &Data,
    variables: &BTreeMap<String, String>,
) -> Result<(), RenderError> {
    let BackendTemplate { source, destination, mode } = template;
    let text = ConfigSource::File(source.clone()).read()?;
    let text = template::render_data(&text, data, variables)
        .map_err(|error| RenderError::Template { path: source.clone(), error })?;
    let write = |error| RenderError::Write { path: destination.clone(), error };
    let (directory, name) = files::writable_parent(destination).map_err(write)?;
    // A path to the open directory, whatever its name becomes.
    let file = directory.path().join(name);
    let present = present(&file).map_err(write)?;
    if present.as_ref().is_some_and(|present| !present.is_file()) {
        return Err(RenderError::NotAFile(destination.clone()));
    }
    replace(&file, &directory.path(), &text, present.as_ref(), *mode).map_err(write)
}

/// Returns the metadata of a file; none if it does not exist. Links are not followed: trusted ones already are.
fn present(file: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(file) {
        Ok(present) => Ok(Some(present)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file atomically. Keeps its owner, and its permissions unless `mode` is set.
fn replace(path: &Path, directory: &Path, text: &str, present: Option<&Metadata>, mode: Option<u32>) -> io::Result<()> {
    let mut next = tempfile::Builder::new().prefix(".ochopod-").tempfile_in(directory)?;
    next.write_all(text.as_bytes())?;
    keep_owner(next.as_file(), present)?;
    let mode = mode.or(present.map(|present| present.mode() & 0o777)).unwrap_or(DEFAULT_MODE);
    next.as_file().set_permissions(Permissions::from_mode(mode))?;
    next.as_file().sync_all()?;
    next.persist(path).map(drop).map_err(|error| error.error)
}

fn keep_owner(file: &File, present: Option<&Metadata>) -> io::Result<()> {
    let own = file.metadata()?;
    match present {
        Some(present) if (present.uid(), present.gid()) != (own.uid(), own.gid()) => {
            fchown(file, Some(present.uid()), Some(present.gid()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn rendered(source: &str, destination: &Path, mode: Option<u32>) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("source");
        fs::write(&file, source).unwrap();
        let template = BackendTemplate { source: file, destination: destination.to_owned(), mode };
        let data = Data::record([("Backend", Data::Text("db".to_owned()))]);
        render_now(&template, &data, &BTreeMap::new()).map_err(|error| error.to_string())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn file_is_replaced_atomically_and_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        rendered("new {{.Backend}}", &file, None).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new db", DEFAULT_MODE));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let before = File::open(&file).unwrap().metadata().unwrap().ino();
        rendered("again", &file, None).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("again", 0o600));
        assert_ne!(fs::metadata(&file).unwrap().ino(), before);
        rendered("x", &file, Some(0o640)).unwrap();
        assert_eq!(mode(&file), 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn trusted_links_are_followed_and_other_kinds_of_files_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        rendered("new", &link, None).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let refused = rendered("x", directory.path(), None).unwrap_err();
        assert!(refused.ends_with("not a regular file"), "{refused}");
        assert!(rendered("x", &directory.path().join("no/such/file"), None).is_err());
    }

    #[test]
    fn links_in_directories_writable_by_others_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let (file, open) = (directory.path().join("file"), directory.path().join("open"));
        fs::write(&file, "old").unwrap();
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        symlink(&file, open.join("planted")).unwrap();
        symlink(directory.path(), open.join("up")).unwrap();
        for planted in ["planted", "up/file"] {
            let error = rendered("new", &open.join(planted), None).unwrap_err();
            assert!(error.starts_with("cannot write "), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "old", "{planted}");
        }
        rendered("new", &open.join("plain"), None).unwrap();
        assert_eq!(fs::read_to_string(open.join("plain")).unwrap(), "new");
    }

    #[test]
    fn failing_template_leaves_the_file_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "old").unwrap();
        for bad in ["{{.Nope}}", "{{range}}", "{{ .X"] {
            assert!(rendered(bad, &file, None).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
