//! As whom, and within which limits, the sub-process and programs of the plugin run.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Flags, Machine,
    secret::PREFIX,
    source::{Given, Source},
};
use crate::init::{Account, Identity, Limit, Privileges, group};

/// Beginning of the limits among the variables.
pub(super) const LIMIT: &str = "rlimit_";

/// What programs start with, and the home directory of their user when that is a matter of settings.
pub(super) fn read(source: &mut Source<'_>, flags: &Flags, machine: &Machine) -> (Privileges, Option<PathBuf>) {
    let limits = limits(source, flags);
    let account = source.given("user", flags.user.as_deref()).and_then(|given| {
        let account = Account::find(&given.text);
        if account.is_none() {
            source.bad(&*given.name, &given.text, "a user of this system, or the number of one");
        }
        Some((given, account?))
    });
    let named = source.given("group", flags.group.as_deref()).and_then(|given| {
        let group = group(&given.text);
        if group.is_none() {
            source.bad(&*given.name, &given.text, "a group of this system, or the number of one");
        }
        Some((given, group?))
    });
    let home = account.as_ref().map(|(_, account)| account.home.clone());
    let identity = identity(source, account, named, machine);
    (Privileges { identity, limits }, home)
}

/// None when nothing has to change, or an error was noted.
fn identity(
    source: &mut Source<'_>,
    account: Option<(Given, Account)>,
    named: Option<(Given, u32)>,
    machine: &Machine,
) -> Option<Identity> {
    let name = account.as_ref().map(|(given, _)| given).or(named.as_ref().map(|(given, _)| given));
    let (name, text) = (name?.name.clone(), name?.text.clone());
    let user = account.as_ref().map_or(machine.user, |(_, account)| account.user);
    let (group, groups) = match (named, account) {
        // A group that is asked for is the only one.
        (Some((_, group)), _) => (group, vec![group]),
        (None, Some((_, Account { group: Some(group), groups, .. }))) => (group, groups),
        (None, _) => {
            source.missing(
                "ochopod_group (--group)",
                format!("the group of user {user}, whom this system does not know"),
            );
            return None;
        }
    };
    if machine.user == 0 {
        return Some(Identity { user, group, groups });
    }
    if (user, group) != (machine.user, machine.group) {
        let own = format!("{}:{}", machine.user, machine.group);
        source.bad(name, &text, format!("the user and group of the host ({own}), which is not root"));
    }
    None
}

/// Each resource limited once: a flag wins over a variable.
fn limits(source: &mut Source<'_>, flags: &Flags) -> Vec<Limit> {
    let mut given = BTreeMap::new();
    for (variable, value) in source.env.iter() {
        let (Some(variable), Some(value)) = (variable.to_str(), value.to_str()) else { continue };
        let name = variable.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(LIMIT));
        let Some(name) = name.filter(|_| !value.is_empty()) else { continue };
        given.insert(name.to_owned(), Given { name: variable.to_owned(), text: value.to_owned() });
    }
    for text in &flags.rlimit {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                given.insert(name.to_owned(), Given { name: format!("--rlimit {name}"), text: value.to_owned() });
            }
            _ => source.bad("--rlimit", text, "NAME=SOFT or NAME=SOFT:HARD"),
        }
    }
    let mut judged = Vec::new();
    for (name, given) in given {
        match Limit::parse(&name, &given.text) {
            Ok(limit) => judged.push(limit),
            Err(expected) => source.bad(given.name, &given.text, expected),
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::settings::Env;

    fn as_host(user: u32, variables: &[(&str, &str)], rlimit: &[&str]) -> (Privileges, Option<PathBuf>, Vec<String>) {
        let address = IpAddr::from([10, 0, 0, 9]);
        let machine = Machine { hostname: "box".into(), address, host: None, init: false, user, group: user };
        let env: Env = variables.iter().copied().collect();
        let flags = Flags { rlimit: rlimit.iter().map(ToString::to_string).collect(), ..Flags::default() };
        let mut source = Source::new(&env);
        let (privileges, home) = read(&mut source, &flags, &machine);
        (privileges, home, source.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_user_brings_groups_and_home_and_a_group_is_the_only_one() {
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
    fn only_root_may_ask_for_somebody_else() {
        let own = [("ochopod_user", "54321"), ("ochopod_group", "54321")];
        let (privileges, home, errors) = as_host(54321, &own, &[]);
        assert_eq!((privileges.identity, home, errors.len()), (None, Some("/".into()), 0));
        for (variable, value) in [("ochopod_user", "root"), ("ochopod_group", "root")] {
            let (_, _, errors) = as_host(54321, &[(variable, value)], &[]);
            let expected = "expected the user and group of the host (54321:54321), which is not root";
            assert_eq!(errors, [format!("{variable} is {value:?}, {expected}")]);
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let variables = [
            ("ochopod_user", "no such user"),
            ("ochopod_group", "no such group"),
            ("ochopod_rlimit_files", "1"),
            ("ochopod_rlimit_nofile", "2:1"),
        ];
        let (_, _, errors) = as_host(0, &variables, &["core", "nproc=x"]);
        let starts = [
            "--rlimit is \"core\"",
            "ochopod_rlimit_files is \"1\", expected one of the resources as, core",
            "ochopod_rlimit_nofile is \"2:1\", expected SOFT or SOFT:HARD",
            "--rlimit nproc is \"x\"",
            "ochopod_user is \"no such user\", expected a user of this system",
            "ochopod_group is \"no such group\"",
        ];
        assert_eq!(errors.len(), starts.len(), "{errors:?}");
        for start in starts {
            assert!(errors.iter().any(|error| error.starts_with(start)), "{start} in {errors:?}");
        }
        let (_, _, errors) = as_host(0, &[("ochopod_user", "54321")], &[]);
        assert_eq!(
            errors,
            ["ochopod_group (--group) is not set, expected the group of user 54321, whom this system does not know"]
        );
    }

    #[test]
    fn a_flag_wins_over_the_variable_of_the_same_resource() {
        let variables = [("ochopod_rlimit_core", "1"), ("ochopod_rlimit_nofile", "5:6")];
        let (privileges, _, errors) = as_host(0, &variables, &["core=0", "stack=unlimited"]);
        assert_eq!(errors, Vec::<String>::new());
        let shown: Vec<String> = privileges.limits.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["core=0:0", "nofile=5:6", &format!("stack={0}:{0}", u64::MAX)]);
    }
}
