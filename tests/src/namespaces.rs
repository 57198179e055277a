//! Environments of pods: commands that set something up and then become, or start, the command that follows.
//!
//! As root they are used directly; other users get a user namespace, if the system allows one.

use nix::unistd::geteuid;

/// Returns the arguments for PID 1 of a new namespace, which ends with it.
#[must_use]
pub fn init() -> Vec<String> {
    unshare(&["--pid", "--fork", "--kill-child", "--mount-proc"])
}

/// Returns the arguments for PID 1 of a new namespace in which only open files can be written.
#[must_use]
pub fn read_only() -> Vec<String> {
    let remount = "mount -o remount,bind,ro / && exec \"$@\"";
    [unshare(&["--pid", "--fork", "--kill-child", "--mount-proc"]), shell(remount)].concat()
}

/// Returns the arguments for PID 1 of a new namespace, on a host of another name.
#[must_use]
pub fn init_on(host: &str) -> Vec<String> {
    let named = format!("hostname {host} && exec \"$@\"");
    [unshare(&["--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]), shell(&named)].concat()
}

/// Mounts of its own.
#[must_use]
pub fn mounts() -> Vec<String> {
    unshare(&["--mount"])
}

/// Returns the arguments for a namespace without `/proc`.
#[must_use]
pub fn without_proc() -> Vec<String> {
    [mounts(), shell("umount -l /proc && exec \"$@\"")].concat()
}

/// Returns the arguments for a namespace without `/dev`.
#[must_use]
pub fn without_dev() -> Vec<String> {
    [mounts(), shell("mount -t tmpfs none /dev && exec \"$@\"")].concat()
}

/// Returns the arguments for PID 1 of a container: the root is this directory, read-only, with `/proc`, `/dev/null` and
/// these mounts (arguments of `mount`, relative to the root). The user is `UID:GID`, if the caller is root.
#[must_use]
pub fn container(root: &std::path::Path, user: &str, mounts: &[&str]) -> Vec<String> {
    let user = if geteuid().is_root() { format!("--userspec={user}") } else { String::new() };
    let mounts = [&[""], mounts].concat().join(" && mount ");
    let text = format!(
        "mount --bind {0} {0} && cd {0} && mount -t proc proc proc && mount -t tmpfs -o mode=755 dev dev \
         && touch dev/null && mount --bind /dev/null dev/null{mounts} && mount -o remount,bind,ro {0} \
         && exec chroot {user} {0} \"$@\"",
        root.display()
    );
    [unshare(&["--mount", "--pid", "--fork", "--kill-child"]), shell(&text)].concat()
}

/// Returns the arguments for a process without a controlling terminal, even if the tests have one.
#[must_use]
pub fn without_terminal() -> Vec<String> {
    ["setsid", "--wait"].map(str::to_owned).to_vec()
}

/// Returns the arguments for a new session, controlled by the terminal that is standard input.
#[must_use]
pub fn on_terminal() -> Vec<String> {
    ["setsid", "--ctty", "--wait"].map(str::to_owned).to_vec()
}

/// Returns the arguments for a namespace whose only name server is at this address, with a timeout longer than any
/// test.
#[must_use]
pub fn with_resolver(address: &str, directory: &std::path::Path) -> Vec<String> {
    let file = directory.join("resolv.conf");
    let text = format!(
        "printf 'nameserver {address}\\noptions timeout:30\\n' > {0} \
         && mount --bind {0} \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"",
        file.display()
    );
    [unshare(&["--mount"]), shell(&text)].concat()
}

/// Returns the arguments for text for the shell, which has the command that follows as its arguments.
#[must_use]
pub fn shell(text: &str) -> Vec<String> {
    ["sh", "-c", text, "sh"].map(str::to_owned).to_vec()
}

fn unshare(what: &[&str]) -> Vec<String> {
    let user: &[&str] = if geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    ["unshare"].iter().chain(user).chain(what).chain(&["--"]).map(|&word| word.to_owned()).collect()
}
