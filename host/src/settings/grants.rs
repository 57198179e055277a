//! What the operator lets the plugin do beyond its sandbox.

use std::path::PathBuf;

use super::{Env, GrantFlags, SettingError, parse, secret::is_secret_variable, source::Source};

/// A directory that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// The host's path.
    pub host: PathBuf,
    /// The path under which the guest sees it.
    pub guest: String,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// Addresses that the guest may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkGrant {
    /// The pods of the present view.
    Peers,
    /// One host.
    Address {
        /// Its name or IP address, without brackets.
        host: String,
        /// Its port; any when none.
        port: Option<u16>,
    },
}

impl NetworkGrant {
    /// What `--net` takes: `peers`, `ADDRESS:PORT` or `ADDRESS:*`, with brackets around an IPv6 address. None when it is
    /// none of these.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        address(text)
    }
}

/// Everything granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories.
    pub directories: Vec<DirectoryGrant>,
    /// Names of environment variables, never those of secrets.
    pub environment: Vec<String>,
    /// Networks.
    pub network: Vec<NetworkGrant>,
    /// Programs for the `exec` import.
    pub programs: Vec<String>,
    /// The only programs that the sub-process may be; any command when none.
    pub exec: Option<Vec<String>>,
}

impl Grants {
    /// What these flags grant.
    ///
    /// # Errors
    /// Every flag that cannot be understood.
    pub fn of(flags: &GrantFlags) -> Result<Self, Vec<SettingError>> {
        let env = Env::default();
        let mut source = Source::new(&env);
        let grants = Self::read(flags, &mut source);
        if source.errors.is_empty() { Ok(grants) } else { Err(source.errors) }
    }

    pub(super) fn read(flags: &GrantFlags, source: &mut Source<'_>) -> Self {
        let mut each = |flag: &str, texts: &[String], expected: &str, fits: &dyn Fn(&str) -> bool| -> Vec<String> {
            let (good, bad): (Vec<_>, Vec<_>) = texts.iter().cloned().partition(|text| fits(text));
            for text in &bad {
                source.bad(flag, text, expected);
            }
            good
        };
        let directories = each("--dir", &flags.dir, "HOST::GUEST or HOST::GUEST:ro", &|text| directory(text).is_some());
        let directories = each("--dir", &directories, "the path of a directory before '::'", &|text| {
            directory(text).is_some_and(|grant| grant.host.is_dir())
        });
        let network = "peers, ADDRESS:PORT or ADDRESS:* ([ADDRESS]:PORT for IPv6)";
        let network = each("--net", &flags.net, network, &|text| address(text).is_some());
        let environment = each("--env", &flags.env, "the name of a variable that is no secret of the host", &|name| {
            !name.is_empty() && !name.contains('=') && !is_secret_variable(name)
        });
        let is_program = |text: &str| !text.is_empty() && !text.contains('\0');
        let programs = each("--run", &flags.run, "a program", &is_program);
        let exec = each("--exec", &flags.exec, "a program", &is_program);
        Self {
            directories: directories.iter().filter_map(|text| directory(text)).collect(),
            environment,
            network: network.iter().filter_map(|text| address(text)).collect(),
            programs,
            exec: (!flags.exec.is_empty()).then_some(exec),
        }
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

fn address(text: &str) -> Option<NetworkGrant> {
    if text == "peers" {
        return Some(NetworkGrant::Peers);
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if !parse::is_address(host) || host.contains(['[', ']']) {
        return None;
    }
    let port = if port == "*" { None } else { Some(parse::port(port)?) };
    Some(NetworkGrant::Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Env, SettingError};

    fn read(flags: &GrantFlags) -> (Grants, Vec<SettingError>) {
        let env = Env::default();
        let mut source = Source::new(&env);
        (Grants::read(flags, &mut source), source.errors)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn nothing_is_granted_by_default_and_any_sub_process_may_run() {
        let (grants, errors) = read(&GrantFlags::default());
        assert_eq!((grants, errors), (Grants::default(), vec![]));
    }

    #[test]
    fn each_flag_grants_what_it_says() {
        let host = tempfile::tempdir().unwrap();
        let path = host.path().to_str().unwrap();
        let flags = GrantFlags {
            dir: texts(&[&format!("{path}::/data"), ".::/etc/app:ro"]),
            env: texts(&["HOME"]),
            net: texts(&["peers", "10.0.0.1:80", "db.local:*", "[::1]:443"]),
            run: texts(&["/bin/df"]),
            exec: texts(&["redis-server"]),
        };
        let (grants, errors) = read(&flags);
        assert_eq!(errors, vec![]);
        let data = DirectoryGrant { host: path.into(), guest: "/data".into(), writable: true };
        let conf = DirectoryGrant { host: ".".into(), guest: "/etc/app".into(), writable: false };
        assert_eq!(grants.directories, [data, conf]);
        let to = |host: &str, port| NetworkGrant::Address { host: host.into(), port };
        let expected = [NetworkGrant::Peers, to("10.0.0.1", Some(80)), to("db.local", None), to("::1", Some(443))];
        assert_eq!(grants.network, expected);
        assert_eq!((grants.environment, grants.programs), (texts(&["HOME"]), texts(&["/bin/df"])));
        assert_eq!(grants.exec, Some(texts(&["redis-server"])));
    }

    #[test]
    fn every_bad_grant_is_reported() {
        let flags = GrantFlags {
            dir: texts(&["/srv", "::/data", "/srv::", "/srv::/data:rw"]),
            env: texts(&["", "A=B", "ochopod_token"]),
            net: texts(&["10.0.0.1", ":80", "::1:80", "*:80", "h:0", "a/b:80", "[::1:80"]),
            run: texts(&[""]),
            exec: texts(&[""]),
        };
        let (_, errors) = read(&flags);
        assert_eq!(errors[0].to_string(), r#"--dir is "/srv", expected HOST::GUEST or HOST::GUEST:ro"#);
        let count = |flag: &str| errors.iter().filter(|error| error.name == flag).count();
        assert_eq!(["--dir", "--env", "--net", "--run", "--exec"].map(count), [4, 3, 7, 1, 1], "{errors:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_bad_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = format!("{}::/data", file.path().display());
        let (_, errors) = read(&GrantFlags { dir: texts(&["/not/there::/data:ro", &file]), ..GrantFlags::default() });
        let expected = "the path of a directory before '::'";
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let named = [
            format!("--dir is \"/not/there::/data:ro\", expected {expected}"),
            format!("--dir is {file:?}, expected {expected}"),
        ];
        assert_eq!(texts, named);
    }
}
