//! Settings that stay within the host, and the parts of values that do.

use std::{collections::BTreeMap, ffi::OsString};

use crate::Env;

/// Prefix of the host's variables.
pub const PREFIX: &str = "ochopod_";
/// Prefix of variables that are passed to the sub-process only.
const SUB_PROCESS_PREFIX: &str = "ochopod_secret_";

/// The setting with the configuration of services, which may contain tokens.
const CONFIG: &str = "config";
/// Prefixes of the names of secrets.
const SECRET_PREFIXES: [&str; 2] = ["tls_", "zk_tls_"];
/// Words whose presence in a name makes the setting a secret.
const SECRET_WORDS: [&str; 12] = [
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "key",
    "credential",
    "credentials",
    "auth",
    "dsn",
    "apikey",
];
/// Suffixes that make a word such a word, without a separator before them.
const SECRET_SUFFIXES: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "credentials"];
/// Prefixes of the variables by which platforms and their tools hand out credentials, where the rest of the name says so.
const PLATFORM_PREFIXES: [&str; 5] = ["AWS_", "CONSUL_", "DCOS_", "NOMAD_META_", "VAULT_"];
/// Token of a Nomad task. Other variables of Nomad contain names of the operator's choice.
const NOMAD_TOKEN: &str = "NOMAD_TOKEN";
/// The slashes after the scheme of a URL: plain, and as JSON may escape them.
const SLASHES: [&str; 2] = ["//", r"\/\/"];

/// Returns whether a setting, by its name without `ochopod_`, is a secret: it reaches neither registration, `/info`, log,
/// guest nor sub-process. Whole words count, with or without a number after them. `config` is a secret too.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    if name == CONFIG {
        return true;
    }
    let name = name.to_ascii_lowercase();
    let is_secret = |word: &str| {
        let word = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
        SECRET_WORDS.contains(&word) || SECRET_SUFFIXES.iter().any(|suffix| word.ends_with(suffix))
    };
    SECRET_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.split(|letter: char| !letter.is_ascii_alphanumeric()).any(is_secret)
}

/// Returns whether an environment variable is a credential of the platform, such as `VAULT_TOKEN` or
/// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`. It reaches the sub-process only.
#[must_use]
pub fn is_platform_secret(name: &str) -> bool {
    name == NOMAD_TOKEN || PLATFORM_PREFIXES.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(is_secret))
}

/// Returns whether an environment variable is a secret setting of the host. Variables without the prefix never are.
#[must_use]
pub fn is_secret_variable(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(is_secret)
}

/// Returns the variables that may be passed on: without secret settings, and without the credentials in URLs of other
/// settings.
#[must_use]
pub fn public_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let public = variables.into_iter().filter_map(|(name, value)| {
        let text = name.to_string_lossy();
        if is_secret_variable(&text) {
            return None;
        }
        let value = match value.to_str() {
            Some(value) if text.starts_with(PREFIX) => without_url_credentials(value).into(),
            _ => value,
        };
        Some((name, value))
    });
    public.collect()
}

/// Returns the secrets of the sub-process: the value of `ochopod_secret_<name>`, by `<name>`. Those of the platform are not
/// included.
#[must_use]
pub fn sub_process_secrets<'v>(
    variables: impl IntoIterator<Item = (&'v OsString, &'v OsString)>,
) -> BTreeMap<OsString, OsString> {
    let secret = |(variable, value): (&OsString, &'v OsString)| {
        let name = variable.to_str()?.strip_prefix(SUB_PROCESS_PREFIX)?;
        is_passable(name).then(|| (name.into(), value.clone()))
    };
    variables.into_iter().filter_map(secret).collect()
}

/// Returns whether a variable is passed to the sub-process only.
#[must_use]
pub fn is_sub_process_secret(variable: &str) -> bool {
    variable.starts_with(SUB_PROCESS_PREFIX)
}

/// Returns whether the sub-process may get a secret by this name. Variables that select the code that runs, and those that
/// the host sets, are reserved.
#[must_use]
pub fn is_passable(name: &str) -> bool {
    let reserved = name == "PATH" || name.starts_with("LD_") || name == "ochopod" || name.starts_with(PREFIX);
    !name.is_empty() && !reserved
}

/// Returns the names after `ochopod_secret_` of all such variables.
pub fn sub_process_secret_names(env: &Env) -> impl Iterator<Item = &str> {
    env.iter().filter_map(|(variable, _)| variable.to_str()?.strip_prefix(SUB_PROCESS_PREFIX))
}

/// Names of the variables that are withheld from registration, plugins and sub-process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Variables that are withheld.
    pub names: Vec<String>,
    /// Variables with a URL whose credentials are removed.
    pub urls: Vec<String>,
    /// Credentials of the platform, which reach the sub-process only.
    pub platform: Vec<String>,
}

impl Withheld {
    /// Returns what is withheld of these variables.
    #[must_use]
    pub fn of(env: &Env) -> Self {
        let mut withheld = Self::default();
        for (name, value) in env.iter() {
            let name = name.to_string_lossy().into_owned();
            if is_secret_variable(&name) {
                withheld.names.push(name);
            } else if name.starts_with(PREFIX)
                && value.to_str().is_some_and(|text| without_url_credentials(text) != text)
            {
                withheld.urls.push(name);
            }
        }
        withheld
    }

    /// Adds the credentials of the platform, for hosts that keep them from plugins.
    #[must_use]
    pub fn with_platform_secrets(self, env: &Env) -> Self {
        let names = env.iter().filter_map(|(name, _)| name.to_str());
        Self { platform: names.filter(|name| is_platform_secret(name)).map(str::to_owned).collect(), ..self }
    }

    /// Returns one note for each name. Notes contain no values.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let names = self.names.iter().map(|name| match name.strip_prefix(SUB_PROCESS_PREFIX) {
            Some(variable) if is_passable(variable) => (name.as_str(), "secret passed to the sub-process only"),
            Some(_) => (name.as_str(), "secret passed to nothing: reserved name"),
            None => (name.as_str(), "secret withheld from registration, plugins and sub-process"),
        });
        let removed = "credentials removed from URL for registration, plugins and sub-process";
        let urls = self.urls.iter().map(move |name| (name.as_str(), removed));
        let passed = "credential of the platform passed to the sub-process only";
        names.chain(urls).chain(self.platform.iter().map(move |name| (name.as_str(), passed)))
    }
}

/// Returns the public part of a connection string for the store: `h1:p,h2:p[/chroot]`, without scheme and credentials.
#[must_use]
pub fn without_credentials(zk: &str) -> &str {
    let rest = zk.trim().strip_prefix("zk://").unwrap_or(zk.trim());
    rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts)
}

/// Removes the credentials of each URL in a text: `scheme://user:password@host/path` becomes `scheme://host/path`.
///
/// Also handles URLs in JSON strings that escape slashes (`scheme:\/\/user:password@host`) and URLs without a scheme
/// (`//user:password@host`) at the start of a word.
#[must_use]
pub fn without_url_credentials(text: &str) -> String {
    let mut public = String::new();
    let mut rest = text;
    // Credentials end with `@`.
    while rest.contains('@')
        && let Some((before, slashes, after)) = split_slashes(rest)
    {
        public.push_str(before);
        rest = match public.chars().next_back() {
            Some(':') => without_user_info(after),
            last if last.is_none_or(starts_word) => without_user_info_of_word(after),
            _ => after,
        };
        public.push_str(slashes);
    }
    public.push_str(rest);
    public
}

/// Splits at the first `//`, which JSON may escape.
fn split_slashes(text: &str) -> Option<(&str, &str, &str)> {
    let (at, slashes) = SLASHES.iter().filter_map(|slashes| Some((text.find(slashes)?, *slashes))).min()?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, slashes, rest.strip_prefix(slashes)?))
}

/// Maximum number of URLs that may be part of one password.
const MAX_WINDOWS: usize = 16;

/// Returns whether a URL without a scheme may follow this character.
fn starts_word(last: char) -> bool {
    last.is_whitespace() || "\"'`=,;<>()[]{}|".contains(last)
}

/// Removes user and password from what follows the scheme of a URL.
///
/// A password may contain `/`, `?`, `#`, spaces and `://`, although it must not: text in the position of a port that is not
/// a number is part of a password.
fn without_user_info(rest: &str) -> &str {
    let Some(first_at) = rest.find('@') else { return rest };
    let (mut cut, mut start) = (None, 0);
    for windows in 1.. {
        // The window ends at the next URL, unless the user and the password of this one do not end before.
        let next = rest.get(start..).and_then(split_scheme).map(|(at, length)| (start + at, length));
        let window = next.and_then(|(at, _)| rest.get(..at)).unwrap_or(rest);
        let (found, complete) = user_info_end(window, start > 0);
        cut = found.or(cut);
        match next {
            // Whatever it is: nothing up to the last `@` is shown.
            Some(_) if !complete && windows == MAX_WINDOWS => {
                cut = rest.rfind('@').map(|at| at + 1);
                break;
            }
            // A window without `@` has no user info that is complete.
            Some((at, length)) if !complete => start = first_at.max(at + length),
            _ => break,
        }
    }
    cut.and_then(|at| rest.get(at..)).unwrap_or(rest)
}

/// Returns where the host starts, if there are credentials before it, and whether the window has the whole of them.
fn user_info_end(window: &str, is_extended: bool) -> (Option<usize>, bool) {
    let url = window.split(|c: char| c.is_whitespace() || "\"<>`".contains(c)).next().unwrap_or_default();
    let authority = authority(url);
    let has_password = has_password_for_port(authority);
    let at = match authority.rfind('@') {
        Some(at) if !is_extended => Some(at),
        None if !has_password => None,
        _ => url.rfind('@').or_else(|| window.rfind('@')),
    };
    // `user:password@word://` is a password that contains `@word://`, for no host is followed by that.
    let host = at.and_then(|at| window.get(at + 1..));
    let complete = match host {
        Some(host) => host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)),
        None => !has_password,
    };
    (at.map(|at| at + 1), complete)
}

/// Returns position and length of the next `://`.
fn split_scheme(text: &str) -> Option<(usize, usize)> {
    SLASHES.iter().filter_map(|slashes| Some((text.find(&format!(":{slashes}"))?, slashes.len() + 1))).min()
}

/// Removes user and password from a URL without a scheme. It ends at the first space, so that prose is left alone.
fn without_user_info_of_word(rest: &str) -> &str {
    let url = rest.split(|c: char| c.is_whitespace() || "\"<>`".contains(c)).next().unwrap_or_default();
    let authority = authority(url);
    let at = authority.rfind('@').or_else(|| has_password_for_port(authority).then(|| url.rfind('@')).flatten());
    at.and_then(|at| rest.get(at + 1..)).unwrap_or(rest)
}

fn authority(url: &str) -> &str {
    url.split(['/', '?', '#']).next().unwrap_or_default().trim_end_matches('\\')
}

fn has_password_for_port(authority: &str) -> bool {
    let port = authority.split_once(':').map(|(_, port)| port);
    !authority.starts_with('[') && port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_is_handled_in_time_that_grows_with_its_length() {
        let list = "http://h1:8080,".repeat(4_000);
        assert_eq!(without_url_credentials(&list), list);
        assert_eq!(without_url_credentials(&format!("{list}http://h")), format!("{list}http://h"));
        assert_eq!(without_url_credentials(&("a://b:x".repeat(4_000) + "@h")), "a://h");
        for text in ["a://b:x@".repeat(4_000), "a://x@b:y".repeat(4_000)] {
            assert!(!without_url_credentials(&text).contains('x'));
        }
        let urls = "a://b@c ".repeat(4_000);
        assert_eq!(without_url_credentials(&urls), "a://c ".repeat(4_000));
    }

    #[test]
    fn secrets_are_recognized_by_whole_words_of_their_names() {
        for name in [
            "token",
            "tls_cert",
            "tls_anything",
            "zk_tls_ca",
            "zk_credentials",
            "db_password",
            "PASSWORD",
            "PASSWD",
            "my_secret",
            "api_token",
            "api_key_2",
            "private_key_pem",
            "key2",
            "db_dsn",
            "dsn_primary",
            "auth",
            "AUTH_header",
            "db_pwd",
            "passphrase",
            "a_credential_b",
            "token_file",
            "my-key",
            "db.pwd",
            "apikey",
            "dbPassword",
            "secret_x",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "tokens",
            "keyspace",
            "zk",
            "secretary",
            "stls_x",
            "author",
            "monkey",
            "authority",
            "keys",
            "passwords",
            "pwdx",
            "dsns",
            "",
            "_",
            "keyboard_layout",
        ] {
            assert!(!is_secret(name), "{name}");
        }
        assert!(is_secret_variable("ochopod_token"));
        assert!(is_secret_variable("ochopod_config"), "a configuration may contain tokens");
        assert!(!is_secret("config_map") && !is_secret("my_config"));
        assert!(!is_secret_variable("MYSQL_ROOT_PASSWORD"), "secrets of the sub-process are passed on");
    }

    #[test]
    fn platform_credentials_are_recognized_by_prefix_and_word() {
        for name in [
            "NOMAD_TOKEN",
            "NOMAD_META_api_key",
            "VAULT_TOKEN",
            "CONSUL_HTTP_TOKEN",
            "CONSUL_HTTP_AUTH",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "DCOS_SERVICE_ACCOUNT_CREDENTIAL",
        ] {
            assert!(is_platform_secret(name) && !is_secret_variable(name), "{name}");
        }
        for name in [
            "AWS_REGION",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "CONSUL_HTTP_ADDR",
            "NOMAD_PORT_auth",
            "NOMAD_SECRETS_DIR",
            "VAULT_ADDR",
            "DB_PASSWORD",
            "ochopod_token",
        ] {
            assert!(!is_platform_secret(name), "{name}");
        }
        let env = Env::from_iter([("VAULT_TOKEN", "hunter2"), ("VAULT_ADDR", "h")]);
        assert_eq!(Withheld::of(&env).notes().count(), 0);
        let withheld = Withheld::of(&env).with_platform_secrets(&env);
        let notes: Vec<_> = withheld.notes().collect();
        assert_eq!(notes, [("VAULT_TOKEN", "credential of the platform passed to the sub-process only")]);
    }

    #[test]
    fn store_credentials_are_removed_whatever_they_contain() {
        let cases = [
            ("h1:2181,h2:2181", "h1:2181,h2:2181"),
            ("zk://h1:2181,h2:2181/mesos", "h1:2181,h2:2181/mesos"),
            ("zk://user:password@h1:2181/a", "h1:2181/a"),
            ("zk://user:p@ss/w:rd@h1:2181", "h1:2181"),
            ("user:password@h1:2181", "h1:2181"),
        ];
        for (given, shown) in cases {
            assert_eq!(without_credentials(given), shown);
        }
    }

    #[test]
    fn url_loses_user_and_password_and_nothing_else() {
        let cases = [
            ("postgres://me:hunter2@db:5432/shop?x=y", "postgres://db:5432/shop?x=y"),
            ("postgres://me:hun@ter2@db/shop", "postgres://db/shop"),
            ("postgres://me:hun/ter2@db/shop", "postgres://db/shop"),
            ("postgres://me:hun?ter#2@db/shop", "postgres://db/shop"),
            ("postgres://me:@db", "postgres://db"),
            ("https://hunter2@host/path", "https://host/path"),
            ("jdbc:mysql://me:hunter2@db", "jdbc:mysql://db"),
            ("amqp://a:hunter2@h1,amqp://b:hunter2@h2", "amqp://h1,amqp://h2"),
            ("see \"redis://:hunter2@h\" and redis://h2:1", "see \"redis://h\" and redis://h2:1"),
            ("mongodb://a:hunter2@h1:1,h2:2/db", "mongodb://h1:1,h2:2/db"),
            ("pg://me:hun,te;r'2@db", "pg://db"),
            ("pg://me:hun ter2@db", "pg://db"),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
            ("https://host/path?mail=a@b.c", "https://host/path?mail=a@b.c"),
            ("https://host:80/@scope", "https://host:80/@scope"),
            (r#"{"u":"http:\/\/me:hunter2@h"}"#, r#"{"u":"http:\/\/h"}"#),
            (r#"{"u":"http:\/\/h:80\/a@b"}"#, r#"{"u":"http:\/\/h:80\/a@b"}"#),
            (r#"{"u":"pg:\/\/me:hun\/ter2@h\/db"}"#, r#"{"u":"pg:\/\/h\/db"}"#),
            ("//me:hunter2@host/x", "//host/x"),
            ("url=//me:hun/ter2@host/x", "url=//host/x"),
            (r#"["\/\/me:hunter2@h"]"#, r#"["\/\/h"]"#),
            ("https://host//a:b@c", "https://host//a:b@c"),
            ("// note: mail a@b.c", "// note: mail a@b.c"),
            ("postgres://me:hunter2a://hunter2@h/db", "postgres://h/db"),
            ("postgres://me:hun@ter2://hunter2@h/db", "postgres://h/db"),
            ("a@b.c", "a@b.c"),
            ("://", "://"),
            ("//", "//"),
            ("", ""),
        ];
        for (given, shown) in cases {
            assert_eq!(without_url_credentials(given), shown, "{given}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_part_of_a_password_remains_whatever_it_contains(
            before in "[a-z@ ]{0,5}",
            user in "[a-z]{0,5}",
            password in prop_oneof!["[a-z!$&'()*+,;=%:@]{0,6}", "[a-z?#:/ ]{0,6}"],
            path in "(/[a-z]{0,4})?",
        ) {
            let shown = without_url_credentials(&format!("{before}s://{user}:HIDDEN{password}@host{path}"));
            prop_assert!(!shown.contains("HIDDEN"), "{}", shown);
            prop_assert!(shown.ends_with(&format!("s://host{path}")), "{}", shown);
            prop_assert_eq!(without_url_credentials(&shown), shown);
        }
    }

    #[test]
    fn only_the_sub_process_gets_secrets_under_their_own_names() {
        let env = Env::from_iter([
            ("HOME", "/root"),
            ("ochopod_colour", "blue"),
            ("ochopod_db_url", "pg://me:hunter2@db"),
            ("DB_URL", "pg://me:its-own@db"),
            ("ochopod_secret_DB_PASSWORD", "hunter2"),
            ("ochopod_secret_PATH", "/evil"),
            ("ochopod_secret_LD_PRELOAD", "evil.so"),
            ("ochopod_secret_ochopod", "{}"),
            ("ochopod_secret_ochopod_ip", "evil"),
            ("ochopod_secret_", "x"),
            ("ochopod_auth", "hunter2"),
            ("ochopod_config", "{ consul: { token: 'hunter2' } }"),
        ]);
        let variables = |pairs: &[(&str, &str)]| -> BTreeMap<OsString, OsString> {
            pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
        };
        let public = [
            ("HOME", "/root"),
            ("ochopod_colour", "blue"),
            ("ochopod_db_url", "pg://db"),
            ("DB_URL", "pg://me:its-own@db"),
        ];
        let all = env.iter().map(|(name, value)| (name.clone(), value.clone()));
        assert_eq!(public_environment(all), variables(&public));
        assert_eq!(sub_process_secrets(env.iter()), variables(&[("DB_PASSWORD", "hunter2")]));
        let reserved: Vec<&str> = sub_process_secret_names(&env).filter(|name| !is_passable(name)).collect();
        assert_eq!(reserved.len(), 5, "{reserved:?}");
        let withheld = Withheld::of(&env);
        assert_eq!(withheld.urls, ["ochopod_db_url"]);
        assert_eq!((withheld.names.len(), withheld.names.contains(&"ochopod_auth".to_owned())), (8, true));
    }
}
