//! Who leads, by the lock nodes: pure.

use super::layout::lock_number;

/// Where a contender stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It has no lock node.
    Absent,
    /// Its lock node, the oldest: it leads.
    First(String),
    /// Its turn comes after this lock node, its direct predecessor.
    Behind(String),
}

/// Where the contender stands whose lock node starts with this token. What is no lock node does not count.
pub(super) fn place(names: &[String], token: &str) -> Place {
    let mut ranked = ranked(names);
    ranked.sort_unstable();
    let Some(position) = ranked.iter().position(|(_, name)| name.starts_with(token)) else { return Place::Absent };
    let name = |at: usize| ranked.get(at).map(|(_, name)| (*name).to_owned()).unwrap_or_default();
    match position.checked_sub(1) {
        None => Place::First(name(position)),
        Some(before) => Place::Behind(name(before)),
    }
}

/// The lock node that holds the lock.
pub(crate) fn holder(names: &[String]) -> Option<&str> {
    ranked(names).into_iter().min().map(|(_, name)| name)
}

fn ranked(names: &[String]) -> Vec<(i64, &str)> {
    names.iter().filter_map(|name| Some((lock_number(name)?, name.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_number_leads_whatever_the_token_and_each_follows_its_direct_predecessor() {
        let names = ["ff__lock__0000000003", "aa__lock__0000000010", "rubbish", "bb__lock__0000000007"];
        let names = names.map(str::to_owned);
        assert_eq!(holder(&names), Some("ff__lock__0000000003"));
        let places = [
            ("ff", Place::First("ff__lock__0000000003".to_owned())),
            ("bb", Place::Behind("ff__lock__0000000003".to_owned())),
            ("aa", Place::Behind("bb__lock__0000000007".to_owned())),
            ("cc", Place::Absent),
            ("rubbish", Place::Absent),
        ];
        for (token, expected) in places {
            assert_eq!(place(&names, token), expected, "{token}");
        }
        assert_eq!(holder(&[]), None);
    }
}
