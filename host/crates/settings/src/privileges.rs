//! User, group and resource limits of the programs that are started.

use std::{collections::BTreeMap, path::PathBuf};

use ochopod_environment::{Env, PREFIX};
use ochopod_init::{Account, Identity, Privileges, ResourceLimit, group, own_user_and_group};

use crate::{Flags, RLIMIT_PREFIX, RawSetting, SettingError, SettingsReader};

/// Reads `user`, `group` and `rlimit` alone: the privileges, and the home directory of the user if `user` is set.
///
/// # Errors
/// All invalid settings.
pub fn read_alone(env: &Env, flags: &Flags) -> Result<(Privileges, Option<PathBuf>), Vec<SettingError>> {
    let mut reader = SettingsReader::new(env, flags);
    let privileges = read(&mut reader, own_user_and_group());
    if reader.errors.is_empty() { Ok(privileges) } else { Err(reader.errors) }
}

/// Returns a warning about limits that have no effect. `user` is the host's.
#[must_use]
pub fn ineffective_limit(privileges: &Privileges, user: u32) -> Option<String> {
    privileges
        .limits_processes_in_vain(user)
        .then(|| "limit on processes without effect: --rlimit nproc does not apply to root; set --user".to_owned())
}

/// Reads the privileges, and the home directory of the user if `user` is set. `own` is the user and the group of the host.
pub fn read(reader: &mut SettingsReader<'_>, own: (u32, u32)) -> (Privileges, Option<PathBuf>) {
    let limits = limits(reader);
    let account = reader.get("user").and_then(|raw| {
        let account = Account::find(&raw.text);
        if account.is_none() {
            reader.invalid(&*raw.name, &raw.text, "an existing user name or a UID");
        }
        Some((raw, account?))
    });
    let named = reader.get("group").and_then(|raw| {
        let group = group(&raw.text);
        if group.is_none() {
            reader.invalid(&*raw.name, &raw.text, "an existing group name or a GID");
        }
        Some((raw, group?))
    });
    let home = account.as_ref().map(|(_, account)| account.home.clone());
    let identity = identity(reader, account, named, own);
    (Privileges { identity, limits }, home)
}

/// Returns none if nothing has to change, or after an error was recorded.
fn identity(
    reader: &mut SettingsReader<'_>,
    account: Option<(RawSetting, Account)>,
    named: Option<(RawSetting, u32)>,
    own: (u32, u32),
) -> Option<Identity> {
    let name = account.as_ref().map(|(raw, _)| raw).or(named.as_ref().map(|(raw, _)| raw));
    let (name, text) = (name?.name.clone(), name?.text.clone());
    let user = account.as_ref().map_or(own.0, |(_, account)| account.user);
    let (group, groups) = match (named, account) {
        // A requested group is the only one.
        (Some((_, group)), _) => (group, vec![group]),
        (None, Some((_, Account { group: Some(group), groups, .. }))) => (group, groups),
        (None, _) => {
            let expected = format!("a group, because user {user} is not in the user database");
            reader.missing("ochopod_group (--group)", expected);
            return None;
        }
    };
    if own.0 == 0 {
        return Some(Identity { user, group, groups });
    }
    if (user, group) != own {
        let own = format!("{}:{}", own.0, own.1);
        let expected = format!("the host's own user and group ({own}): other identities require root");
        reader.invalid(name, &text, expected);
    }
    None
}

/// Reads the limits, one for each resource: a flag takes precedence over a variable.
fn limits(reader: &mut SettingsReader<'_>) -> Vec<ResourceLimit> {
    let mut raw_limits = BTreeMap::new();
    for (variable, value) in reader.env.iter() {
        let (Some(variable), Some(value)) = (variable.to_str(), value.to_str()) else { continue };
        let name = variable.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(RLIMIT_PREFIX));
        let Some(name) = name.filter(|_| !value.is_empty()) else { continue };
        raw_limits.insert(name.to_owned(), RawSetting { name: variable.to_owned(), text: value.to_owned() });
    }
    for text in reader.flags.all("rlimit") {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                raw_limits
                    .insert(name.to_owned(), RawSetting { name: format!("--rlimit {name}"), text: value.to_owned() });
            }
            _ => reader.invalid("--rlimit", text, "NAME=SOFT or NAME=SOFT:HARD"),
        }
    }
    let mut limits = Vec::new();
    for (name, raw) in raw_limits {
        match ResourceLimit::parse(&name, &raw.text) {
            Ok(limit) => limits.push(limit),
            Err(expected) => reader.invalid(raw.name, &raw.text, expected),
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_host(user: u32, variables: &[(&str, &str)], rlimit: &[&str]) -> (Privileges, Option<PathBuf>, Vec<String>) {
        let env: Env = variables.iter().copied().collect();
        let flags = rlimit.iter().fold(Flags::default(), |flags, limit| flags.with("rlimit", *limit));
        let mut reader = SettingsReader::new(&env, &flags);
        let (privileges, home) = read(&mut reader, (user, user));
        (privileges, home, reader.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn user_sets_groups_and_home_and_group_is_the_only_one() {
        let as_root = |variables: &[(&str, &str)]| {
            let (privileges, home, errors) = as_host(0, variables, &[]);
            assert_eq!(errors, Vec::<String>::new());
            (privileges.identity.map(|id| (id.user, id.group, id.groups)), home)
        };
        assert_eq!(as_root(&[]), (None, None));
        assert_eq!(as_root(&[("ochopod_user", "root")]), (Some((0, 0, vec![0])), Some("/root".into())));
        let number = [("ochopod_user", "54321"), ("ochopod_group", "12")];
        assert_eq!(as_root(&number), (Some((54321, 12, vec![12])), Some("/".into())));
        assert_eq!(as_root(&[("ochopod_group", "12")]), (Some((0, 12, vec![12])), None));
    }

    #[test]
    fn other_identities_require_root() {
        let own = [("ochopod_user", "54321"), ("ochopod_group", "54321")];
        let (privileges, home, errors) = as_host(54321, &own, &[]);
        assert_eq!((privileges.identity, home, errors.len()), (None, Some("/".into()), 0));
        for (variable, value) in [("ochopod_user", "root"), ("ochopod_group", "root")] {
            let (_, _, errors) = as_host(54321, &[(variable, value)], &[]);
            let expected = "expected the host's own user and group (54321:54321): other identities require root";
            assert_eq!(errors, [format!("{variable}: invalid value {value:?}, {expected}")]);
        }
    }

    #[test]
    fn all_invalid_privileges_are_reported() {
        let variables = [
            ("ochopod_user", "no such user"),
            ("ochopod_group", "no such group"),
            ("ochopod_rlimit_files", "1"),
            ("ochopod_rlimit_nofile", "2:1"),
        ];
        let (_, _, errors) = as_host(0, &variables, &["core", "nproc=x"]);
        let starts = [
            "--rlimit: invalid value \"core\"",
            "ochopod_rlimit_files: invalid value \"1\", expected one of the resources as, core",
            "ochopod_rlimit_nofile: invalid value \"2:1\", expected SOFT or SOFT:HARD",
            "--rlimit nproc: invalid value \"x\"",
            "ochopod_user: invalid value \"no such user\", expected an existing user name",
            "ochopod_group: invalid value \"no such group\"",
        ];
        assert_eq!(errors.len(), starts.len(), "{errors:?}");
        for start in starts {
            assert!(errors.iter().any(|error| error.starts_with(start)), "{start} in {errors:?}");
        }
        let (_, _, errors) = as_host(0, &[("ochopod_user", "54321")], &[]);
        assert_eq!(
            errors,
            ["ochopod_group (--group): not set, expected a group, because user 54321 is not in the user database"]
        );
    }

    #[test]
    fn flag_takes_precedence_over_the_variable_of_the_same_resource() {
        let variables = [("ochopod_rlimit_core", "1"), ("ochopod_rlimit_nofile", "5:6")];
        let (privileges, _, errors) = as_host(0, &variables, &["core=0", "stack=unlimited"]);
        assert_eq!(errors, Vec::<String>::new());
        let shown: Vec<String> = privileges.limits.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["core=0:0", "nofile=5:6", &format!("stack={0}:{0}", u64::MAX)]);
    }
}
