//! Flags of the permissions of a plugin beyond its sandbox: `--dir`, `--env`, `--net`, `--run` and `--exec`.

use std::path::PathBuf;

use ochopod_environment::{Env, is_platform_secret, is_secret_variable};
use ochopod_files as files;
use ochopod_plugin::{DirectoryGrant, Grants, NetworkGrant};
use ochopod_settings::{Flags, SettingError, SettingsReader};

/// Form of the programs of `--exec`.
const EXEC_FORM: &str = "a program: a name without '/', or an absolute path";

/// Permissions of the plugin beyond its sandbox. Nothing is granted by default.
#[allow(clippy::doc_markdown, reason = "the comments on fields are what --help shows")]
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Grants to the plugin")]
pub struct GrantFlags {
    /// Directory, read-only with :ro; repeatable
    #[arg(long, value_name = "HOST::GUEST[:ro]")]
    pub dir: Vec<String>,
    /// Environment variable (those named ochopod_* and PORT_N need no grant); repeatable
    #[arg(long, value_name = "NAME")]
    pub env: Vec<String>,
    /// Network access to ADDRESS:PORT (PORT may be '*'), or to all pods of the current view (peers). Only granted names are
    /// resolved. Loopback ports that the plugin declares need no grant, loopback:PORT grants others; control ports and
    /// ZooKeeper are never granted; repeatable
    #[arg(long, value_name = "ADDRESS:PORT|peers")]
    pub net: Vec<String>,
    /// Program for the exec import; repeatable
    #[arg(long, value_name = "PROGRAM")]
    pub run: Vec<String>,
    /// Restrict the sub-process to this program: a name without '/', or an absolute path. The plugin may then set only
    /// variables that it declares, never PATH or LD_*; repeatable
    #[arg(long, value_name = "PROGRAM")]
    pub exec: Vec<String>,
}

/// Parses the grants alone.
///
/// # Errors
/// All invalid flags.
pub fn read_alone(flags: &GrantFlags) -> Result<Grants, Vec<SettingError>> {
    let env = Env::default();
    let no_flags = Flags::default();
    let mut reader = SettingsReader::new(&env, &no_flags);
    let grants = read(flags, &mut reader);
    if reader.errors.is_empty() { Ok(grants) } else { Err(reader.errors) }
}

/// Declares the directories that guests may write to, so that no file in them is trusted. Must be called before any file is
/// opened by name. Invalid flags grant nothing.
pub fn declare(flags: &GrantFlags) {
    let granted = flags.dir.iter().filter_map(|text| directory(text)).filter(|grant| grant.writable);
    let granted: Vec<PathBuf> = granted.map(|grant| grant.host).collect();
    files::declare_guest_directories(granted.iter().map(PathBuf::as_path));
}

pub(super) fn read(flags: &GrantFlags, reader: &mut SettingsReader<'_>) -> Grants {
    let mut each = |flag: &str, texts: &[String], expected: &str, fits: &dyn Fn(&str) -> bool| -> Vec<String> {
        let (good, bad): (Vec<_>, Vec<_>) = texts.iter().cloned().partition(|text| fits(text));
        for text in &bad {
            reader.invalid(flag, text, expected);
        }
        good
    };
    let directories = each("--dir", &flags.dir, "HOST::GUEST or HOST::GUEST:ro", &|text| directory(text).is_some());
    let directories = each("--dir", &directories, "an existing directory before '::'", &|text| {
        directory(text).is_some_and(|grant| grant.host.is_dir())
    });
    let network = "peers, loopback:PORT, ADDRESS:PORT or ADDRESS:* ([ADDRESS]:PORT for IPv6)";
    let network = each("--net", &flags.net, network, &|text| NetworkGrant::read(text).is_some());
    let environment = each("--env", &flags.env, "a variable name that is not a secret of host or platform", &|name| {
        !name.is_empty() && !name.contains('=') && !is_secret_variable(name) && !is_platform_secret(name)
    });
    let is_program = |text: &str| !text.is_empty() && !text.contains('\0');
    let programs = each("--run", &flags.run, "a program", &is_program);
    let exec = each("--exec", &flags.exec, EXEC_FORM, &|text| is_program(text) && is_fixed(text));
    reject_relative_search(&exec, reader);
    Grants {
        directories: directories.iter().filter_map(|text| directory(text)).collect(),
        environment,
        network: network.iter().filter_map(|text| NetworkGrant::read(text)).collect(),
        programs,
        exec: (!flags.exec.is_empty()).then_some(exec),
    }
}

/// Returns whether the program does not depend on the working directory, which the plugin sets.
fn is_fixed(program: &str) -> bool {
    program.starts_with('/') || !program.contains('/')
}

/// Rejects relative directories in `PATH` if it is searched for a program of `--exec`: they would be relative to the working
/// directory, which the plugin sets.
fn reject_relative_search(exec: &[String], reader: &mut SettingsReader<'_>) {
    if exec.iter().all(|program| program.contains('/')) {
        return;
    }
    let path = reader.env.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.clone());
    if let Some(path) = path.filter(|path| !std::env::split_paths(path).all(|entry| entry.is_absolute())) {
        reader.invalid("PATH", &path.to_string_lossy(), "absolute directories only, because --exec is given a name");
    }
}

fn directory(text: &str) -> Option<DirectoryGrant> {
    let (host, guest) = text.split_once("::")?;
    let (guest, writable) = guest.strip_suffix(":ro").map_or((guest, true), |guest| (guest, false));
    if host.is_empty() || guest.is_empty() || guest.contains(':') {
        return None;
    }
    Some(DirectoryGrant { host: PathBuf::from(host), guest: guest.to_owned(), writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(flags: &GrantFlags) -> (Grants, Vec<SettingError>) {
        read_with(&Env::default(), flags)
    }

    fn read_with(env: &Env, flags: &GrantFlags) -> (Grants, Vec<SettingError>) {
        let no_flags = Flags::default();
        let mut reader = SettingsReader::new(env, &no_flags);
        (read(flags, &mut reader), reader.errors)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn default_grants_nothing_and_allows_any_sub_process() {
        let (grants, errors) = read_all(&GrantFlags::default());
        assert_eq!((grants, errors), (Grants::default(), vec![]));
    }

    #[test]
    fn each_flag_grants_its_permission() {
        let host = tempfile::tempdir().unwrap();
        let path = host.path().to_str().unwrap();
        let flags = GrantFlags {
            dir: texts(&[&format!("{path}::/data"), ".::/etc/app:ro"]),
            env: texts(&["HOME"]),
            net: texts(&["peers", "10.0.0.1:80", "db.local:*", "[::1]:443", "loopback:6379", "loopback:*"]),
            run: texts(&["/bin/df"]),
            exec: texts(&["redis-server"]),
        };
        let (grants, errors) = read_all(&flags);
        assert_eq!(errors, vec![]);
        let data = DirectoryGrant { host: path.into(), guest: "/data".into(), writable: true };
        let conf = DirectoryGrant { host: ".".into(), guest: "/etc/app".into(), writable: false };
        assert_eq!(grants.directories, [data, conf]);
        let to = |host: &str, port| NetworkGrant::Address { host: host.into(), port };
        let loopback = |port| NetworkGrant::Loopback { port };
        let addresses = [to("10.0.0.1", Some(80)), to("db.local", None), to("::1", Some(443))];
        let expected = [NetworkGrant::Peers].into_iter().chain(addresses).chain([loopback(Some(6379)), loopback(None)]);
        assert_eq!(grants.network, expected.collect::<Vec<_>>());
        assert_eq!((grants.environment, grants.programs), (texts(&["HOME"]), texts(&["/bin/df"])));
        assert_eq!(grants.exec, Some(texts(&["redis-server"])));
    }

    #[test]
    fn all_invalid_grants_are_reported() {
        let flags = GrantFlags {
            dir: texts(&["/srv", "::/data", "/srv::", "/srv::/data:rw"]),
            env: texts(&["", "A=B", "ochopod_token"]),
            net: texts(&["10.0.0.1", ":80", "::1:80", "*:80", "h:0", "a/b:80", "[::1:80", "loopback", "loopback:0"]),
            run: texts(&[""]),
            exec: texts(&[""]),
        };
        let (_, errors) = read_all(&flags);
        assert_eq!(errors[0].to_string(), r#"--dir: invalid value "/srv", expected HOST::GUEST or HOST::GUEST:ro"#);
        let count = |flag: &str| errors.iter().filter(|error| error.name == flag).count();
        assert_eq!(["--dir", "--env", "--net", "--run", "--exec"].map(count), [4, 3, 9, 1, 1], "{errors:?}");
    }

    #[test]
    fn exec_is_a_name_or_an_absolute_path_and_never_relative_to_the_working_directory() {
        let exec = |path: Option<&str>, programs: &[&str]| {
            let env = path.map(|path| ("PATH", path)).into_iter().collect();
            let (grants, errors) = read_with(&env, &GrantFlags { exec: texts(programs), ..GrantFlags::default() });
            (grants.exec.unwrap_or_default(), errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let valid = ["redis-server", "/usr/bin/app", "/opt/../app"];
        assert_eq!(exec(Some("/usr/bin:/bin"), &valid), (texts(&valid), vec![]));
        for relative in ["bin/app", "./app", "../app", "app/"] {
            let error = format!("--exec: invalid value {relative:?}, expected {EXEC_FORM}");
            assert_eq!(exec(None, &[relative, "app"]), (texts(&["app"]), vec![error]));
        }
        for path in [".", "/bin:.", "/bin:", "bin:/bin"] {
            let expected = "expected absolute directories only, because --exec is given a name";
            assert_eq!(exec(Some(path), &["app"]).1, [format!("PATH: invalid value {path:?}, {expected}")]);
            assert_eq!(exec(Some(path), &["/bin/app"]).1, Vec::<String>::new());
        }
    }

    #[test]
    fn missing_directory_is_an_invalid_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = format!("{}::/data", file.path().display());
        let (_, errors) =
            read_all(&GrantFlags { dir: texts(&["/not/there::/data:ro", &file]), ..GrantFlags::default() });
        let expected = "an existing directory before '::'";
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let named = [
            format!("--dir: invalid value \"/not/there::/data:ro\", expected {expected}"),
            format!("--dir: invalid value {file:?}, expected {expected}"),
        ];
        assert_eq!(texts, named);
    }
}
