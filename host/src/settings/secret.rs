//! Which settings nobody but the host may see.

/// What the variables of the host begin with.
pub(super) const PREFIX: &str = "ochopod_";

const BEGINNINGS: [&str; 2] = ["tls_", "zk_tls_"];
const ENDINGS: [&str; 5] = ["password", "secret", "token", "key", "credentials"];

/// Whether a setting, by its name without `ochopod_`, is a secret: it reaches neither registration, `/info`, log, guest
/// nor sub-process.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether an environment variable is a secret setting of the host. Variables of others are theirs to judge.
#[must_use]
pub fn is_secret_variable(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(is_secret)
}

/// A connection string for the store as anybody may see it: `h1:p,h2:p[/chroot]`, without scheme and credentials.
pub(super) fn without_credentials(zk: &str) -> &str {
    let rest = zk.trim().strip_prefix("zk://").unwrap_or(zk.trim());
    rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in [
            "token",
            "tls_cert",
            "tls_anything",
            "zk_tls_ca",
            "zk_credentials",
            "db_password",
            "PASSWORD",
            "my_secret",
            "api_token",
            "apikey",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["tokens", "token_file", "keyspace", "zk", "secretary", "stls_x"] {
            assert!(!is_secret(name), "{name}");
        }
        assert!(is_secret_variable("ochopod_token"));
        assert!(!is_secret_variable("MYSQL_ROOT_PASSWORD"), "the sub-process needs its own");
    }

    #[test]
    fn credentials_are_cut_off_whatever_they_contain() {
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
}
