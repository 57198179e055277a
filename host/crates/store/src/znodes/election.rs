//! The leader lock: order of the contenders, by their lock nodes, and the current holder.

use ochopod_model::PodId;

use super::{CoordError, Coordination, layout::lock_number};
use crate::LockHolder;

/// Attempts to read a holder that changes while it is read.
const MAX_HOLDER_READS: usize = 5;

/// Position of a contender in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueuePosition {
    /// The contender has no lock node.
    Absent,
    /// Its lock node is the oldest: it leads.
    First(String),
    /// It waits for this lock node, its direct predecessor.
    Behind(String),
}

/// Returns the position of the contender whose lock node starts with this token. Names that are not lock nodes are ignored.
pub(super) fn queue_position(names: &[String], token: &str) -> QueuePosition {
    let mut ranked = ranked(names);
    ranked.sort_unstable();
    let Some(position) = ranked.iter().position(|(_, name)| name.starts_with(token)) else {
        return QueuePosition::Absent;
    };
    let name = |at: usize| ranked.get(at).map(|(_, name)| (*name).to_owned()).unwrap_or_default();
    match position.checked_sub(1) {
        None => QueuePosition::First(name(position)),
        Some(before) => QueuePosition::Behind(name(before)),
    }
}

/// Returns the lock node that holds the lock.
#[must_use]
pub fn holder(names: &[String]) -> Option<&str> {
    ranked(names).into_iter().min().map(|(_, name)| name)
}

/// Reads the current holder; none if no pod holds the lock.
pub(crate) async fn read_holder(
    session: &dyn Coordination,
    coordinator: &str,
) -> Result<Option<LockHolder>, CoordError> {
    session.sync(coordinator).await?;
    for _ in 0..MAX_HOLDER_READS {
        let names = session.children(coordinator).await?.unwrap_or_default();
        let Some(name) = holder(&names) else { return Ok(None) };
        let path = format!("{coordinator}/{name}");
        if let Some(node) = session.read(&path).await? {
            // Pods of the Python SDK leave it empty.
            let pod = String::from_utf8(node.data).ok().filter(|id| !id.is_empty()).map(|id| PodId::from(&*id));
            return Ok(Some(LockHolder { epoch: node.created, pod, path }));
        }
    }
    Err(CoordError::Unavailable("leader lock changes faster than it can be read".to_owned()))
}

/// Returns whether this holder still holds the lock: as long as the oldest lock node exists, it is the oldest.
pub(crate) async fn still_holds(session: &dyn Coordination, holder: &LockHolder) -> Result<bool, CoordError> {
    Ok(session.read_synced(&holder.path).await?.is_some_and(|node| node.created == holder.epoch))
}

/// Waits until this holder has released the lock or lost it.
pub(crate) async fn until_released(session: &dyn Coordination, holder: &LockHolder) -> Result<(), CoordError> {
    loop {
        let (node, changed) = session.read_and_watch(&holder.path).await?;
        if node.is_none_or(|node| node.created != holder.epoch) {
            return Ok(());
        }
        changed.await;
    }
}

fn ranked(names: &[String]) -> Vec<(i64, &str)> {
    names.iter().filter_map(|name| Some((lock_number(name)?, name.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contender_with_the_lowest_number_leads_and_others_wait_for_their_predecessor() {
        let names = ["ff__lock__0000000003", "aa__lock__0000000010", "rubbish", "bb__lock__0000000007"];
        let names = names.map(str::to_owned);
        assert_eq!(holder(&names), Some("ff__lock__0000000003"));
        let positions = [
            ("ff", QueuePosition::First("ff__lock__0000000003".to_owned())),
            ("bb", QueuePosition::Behind("ff__lock__0000000003".to_owned())),
            ("aa", QueuePosition::Behind("bb__lock__0000000007".to_owned())),
            ("cc", QueuePosition::Absent),
            ("rubbish", QueuePosition::Absent),
        ];
        for (token, expected) in positions {
            assert_eq!(queue_position(&names, token), expected, "{token}");
        }
        assert_eq!(holder(&[]), None);
    }
}
