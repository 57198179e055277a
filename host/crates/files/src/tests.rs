//! Opened and rejected files, in directories of every kind.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use nix::{
    sys::stat::Mode,
    unistd::{geteuid, mkfifo},
};
use tempfile::TempDir;

use super::*;

/// A directory with this mode, and a file outside of it.
struct TestDirectory {
    _temporary: TempDir,
    directory: PathBuf,
    secret: PathBuf,
}

impl TestDirectory {
    fn new(mode: u32) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, secret) = (temporary.path().join("logs"), temporary.path().join("secret"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).unwrap();
        fs::write(&secret, "secret").unwrap();
        Self { _temporary: temporary, directory, secret }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Changes the owner of the directory. False if that requires root.
    fn change_owner(&self) -> bool {
        let given = std::os::unix::fs::chown(&self.directory, Some(12345), None).is_ok();
        assert!(given || !geteuid().is_root());
        given
    }
}

fn append(path: &Path) -> io::Result<File> {
    let (directory, name) = writable_parent(path)?;
    directory.append(&name)
}

fn reason<T>(result: io::Result<T>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn links_are_followed_where_only_root_and_the_host_may_write() {
    let dir = TestDirectory::new(0o755);
    fs::create_dir(dir.file("..2026")).unwrap();
    fs::write(dir.file("..2026/token"), "t").unwrap();
    // As Kubernetes mounts secrets.
    symlink("..2026", dir.file("..data")).unwrap();
    symlink("..data/token", dir.file("token")).unwrap();
    symlink(&dir.secret, dir.file("absolute")).unwrap();
    symlink("../secret", dir.file("above")).unwrap();
    assert_eq!(read(&dir.file("token"), 10).unwrap(), b"t");
    for name in ["absolute", "above"] {
        assert_eq!(read(&dir.file(name), 10).unwrap(), b"secret", "{name}");
    }
    append(&dir.file("token")).unwrap().write_all(b"u").unwrap();
    assert_eq!(fs::read(dir.file("..2026/token")).unwrap(), b"tu");
}

#[test]
fn links_in_a_directory_that_others_may_change_are_refused() {
    for mode in [0o777, 0o775] {
        let dir = TestDirectory::new(mode);
        symlink(&dir.secret, dir.file("absolute")).unwrap();
        symlink("../secret", dir.file("relative")).unwrap();
        symlink("..", dir.file("up")).unwrap();
        for name in ["absolute", "relative", "up/secret"] {
            let expected = "in a directory to which other users or the plugin may write";
            assert!(reason(read(&dir.file(name), 10)).contains(expected), "{name} {mode:o}");
            assert!(reason(append(&dir.file(name))).contains(expected), "{name} {mode:o}");
            assert!(reason(truncate(&dir.file(name), 0o644)).contains(expected), "{name} {mode:o}");
        }
        assert_eq!(fs::read(&dir.secret).unwrap(), b"secret");
    }
}

#[test]
fn a_sticky_directory_lets_links_of_the_host_be_read_but_not_written_through() {
    let dir = TestDirectory::new(0o1777);
    symlink("../secret", dir.file("link")).unwrap();
    assert_eq!(read(&dir.file("link"), 10).unwrap(), b"secret");
    assert!(append(&dir.file("link")).is_err());
    if std::os::unix::fs::lchown(dir.file("link"), Some(12345), None).is_ok() {
        assert!(reason(read(&dir.file("link"), 10)).contains("belongs to user 12345"));
    }
}

#[test]
fn a_directory_of_another_user_is_one_that_others_may_change() {
    let dir = TestDirectory::new(0o755);
    symlink("../secret", dir.file("link")).unwrap();
    fs::write(dir.file("log"), "").unwrap();
    if dir.change_owner() {
        assert!(read(&dir.file("link"), 10).is_err());
        append(&dir.file("log")).unwrap().write_all(b"x").unwrap();
        assert_eq!(read(&dir.file("log"), 10).unwrap(), b"x");
    }
}

#[test]
fn hard_links_are_refused_where_others_may_have_made_them() {
    for (mode, accepted) in [(0o777, false), (0o1777, false), (0o755, true)] {
        let dir = TestDirectory::new(mode);
        fs::hard_link(&dir.secret, dir.file("log")).unwrap();
        for result in [append(&dir.file("log")), truncate(&dir.file("log"), 0o644), open(&dir.file("log"))] {
            assert_eq!(result.is_ok(), accepted, "{mode:o}");
        }
        if !accepted {
            assert_eq!(fs::read(&dir.secret).unwrap(), b"secret", "{mode:o}");
        }
    }
}

#[test]
fn directories_writable_by_guests_are_not_trusted_although_they_belong_to_the_host() {
    let dir = TestDirectory::new(0o755);
    fs::create_dir(dir.file("below")).unwrap();
    symlink("../../secret", dir.file("below/link")).unwrap();
    fs::write(dir.file("below/code"), "").unwrap();
    assert!(read(&dir.file("below/link"), 10).is_ok() && open_code(&dir.file("below/code")).is_ok());
    declare_guest_directories([dir.directory.as_path()]);
    for path in ["below/link", "below/../below/link"] {
        assert!(read(&dir.file(path), 10).is_err(), "{path}");
    }
    assert!(reason(open_code(&dir.file("below/code"))).contains("to which the plugin may write (--dir)"));
    assert_eq!(read(&dir.file("below/code"), 10).unwrap(), b"");
    open_code(&dir.secret).unwrap();
}

#[test]
fn only_regular_files_are_opened_and_none_is_waited_for() {
    let dir = TestDirectory::new(0o755);
    mkfifo(&dir.file("pipe"), Mode::S_IRWXU).unwrap();
    symlink("pipe", dir.file("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.file("socket")).unwrap();
    for (path, kind) in [
        (dir.file("pipe"), "a pipe"),
        (dir.file("link"), "a pipe"),
        (dir.file("socket"), "a socket"),
        (dir.directory.clone(), "a directory"),
        ("/dev/zero".into(), "a device"),
        ("/dev/tty".into(), "a device"),
    ] {
        for result in [read(&path, 10).map(|_| ()), append(&path).map(|_| ()), truncate(&path, 0o644).map(|_| ())] {
            assert_eq!(reason(result), format!("not a regular file but {kind}"), "{}", path.display());
        }
    }
    assert_eq!(read(&dir.file("none"), 10).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(read(&dir.file("pipe/x"), 10).is_err());
    for path in ["", "/", ".", "..", "/tmp/.."] {
        assert!(read(Path::new(path), 10).is_err(), "{path:?}");
    }
}

#[test]
fn sizes_and_links_are_bounded() {
    let dir = TestDirectory::new(0o755);
    assert_eq!(read(&dir.secret, 6).unwrap(), b"secret");
    assert_eq!(read(&dir.secret, 5).unwrap_err().kind(), ErrorKind::FileTooLarge);
    // A file of /proc has no size.
    assert_eq!(read(Path::new("/proc/self/status"), 5).unwrap_err().kind(), ErrorKind::FileTooLarge);
    symlink("loop", dir.file("loop")).unwrap();
    assert_eq!(reason(read(&dir.file("loop"), 10)), "too many symbolic links");
}

#[test]
fn open_files_of_the_process_can_be_read_by_their_links_unless_they_are_pipes() {
    let dir = TestDirectory::new(0o755);
    let file = fs::File::open(&dir.secret).unwrap();
    let (pipe, _writer) = nix::unistd::pipe().unwrap();
    let link = |descriptor: i32| PathBuf::from(format!("/dev/fd/{descriptor}"));
    assert_eq!(read(&link(std::os::fd::AsRawFd::as_raw_fd(&file)), 10).unwrap(), b"secret");
    assert_eq!(reason(read(&link(std::os::fd::AsRawFd::as_raw_fd(&pipe)), 10)), "not a regular file but a pipe");
}

#[test]
fn directories_are_created_found_and_kept_by_their_descriptor() {
    let dir = TestDirectory::new(0o755);
    let made = Directory::create(&dir.file("a/b"), 0o700).unwrap();
    assert_eq!(made.owner_and_mode().unwrap(), (geteuid().as_raw(), 0o700));
    fs::rename(dir.file("a"), dir.file("moved")).unwrap();
    made.create_new(OsStr::new("file"), 0o600).unwrap().write_all(b"x").unwrap();
    assert!(made.create_new(OsStr::new("file"), 0o600).is_err());
    made.rename(OsStr::new("file"), OsStr::new("other")).unwrap();
    let mut text = String::new();
    fs::File::open(made.path().join("other")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), dir.file("moved/b/other").exists()), ("x", true));
    assert!(Directory::find(&dir.secret).is_err() && Directory::find(&dir.file("none")).is_err());
    symlink("/", dir.file("root")).unwrap();
    Directory::find(&dir.file("root/etc")).unwrap();
}

#[test]
fn a_directory_that_others_may_replace_is_rejected() {
    for (mode, stays) in [(0o755, true), (0o1777, true), (0o777, false)] {
        let dir = TestDirectory::new(mode);
        let cache = Directory::create(&dir.file("cache"), 0o700).unwrap();
        assert_eq!(cache.expect_to_stay(&dir.file("cache")).is_ok(), stays, "{mode:o}");
    }
}

#[test]
fn a_file_that_two_processes_create_concurrently_is_opened_by_both() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let path = directory.path().join(round.to_string());
        let append = || {
            let (directory, name) = writable_parent(&path).unwrap();
            directory.append(&name).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(append);
            scope.spawn(append);
        });
    }
}
