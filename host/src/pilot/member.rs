//! One of the crew: an actor, what it was started with, and what it leaves behind.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// An actor that carries out `what`. Dropping it ends it at once, with whatever it runs.
pub(super) struct Member<T, Report, Legacy> {
    pub(super) what: T,
    /// What it says about itself.
    pub(super) report: watch::Receiver<Report>,
    stop: CancellationToken,
    life: AbortOnDropHandle<Legacy>,
}

impl<T, Report, Legacy: Send + 'static> Member<T, Report, Legacy> {
    /// Starts an actor that ends when its token is cancelled.
    pub(super) fn start<Life>(
        what: T,
        report: watch::Receiver<Report>,
        life: impl FnOnce(CancellationToken) -> Life,
    ) -> Self
    where
        Life: Future<Output = Legacy> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let life = AbortOnDropHandle::new(tokio::spawn(life(stop.clone())));
        Self { what, report, stop, life }
    }

    /// Asks it to end, now. The future is what it leaves behind once it has.
    ///
    /// # Cancellation safety
    /// Dropping the future ends it at once, with whatever it runs.
    pub(super) fn end(self) -> impl Future<Output = Option<Legacy>> + Send + 'static {
        self.stop.cancel();
        let life = self.life;
        async move { life.await.ok() }
    }
}

/// Makes the present members those that are wanted. One that carries out what is wanted goes on as it is. Each other one that
/// is wanted is started, told of its predecessor: one that is not wanted any more but has the same `key`. Returns the rest.
pub(super) fn reconcile<T, Report, Legacy, Key: PartialEq>(
    present: &mut Vec<Member<T, Report, Legacy>>,
    wanted: Vec<T>,
    goes_on: impl Fn(&T, &T) -> bool,
    key: impl Fn(&T) -> Key,
    mut start: impl FnMut(T, Option<Member<T, Report, Legacy>>) -> Member<T, Report, Legacy>,
) -> Vec<Member<T, Report, Legacy>> {
    let mut former = std::mem::take(present);
    let mut take = |is_it: &dyn Fn(&T) -> bool| {
        let index = former.iter().position(|member| is_it(&member.what))?;
        Some(former.remove(index))
    };
    // All of these first, so that nobody succeeds one of them.
    let kept: Vec<_> = wanted.iter().map(|what| take(&|present| goes_on(present, what))).collect();
    for (what, kept) in wanted.into_iter().zip(kept) {
        let member = kept.unwrap_or_else(|| {
            let key_of_it = key(&what);
            let predecessor = take(&|present| key(present) == key_of_it);
            start(what, predecessor)
        });
        present.push(member);
    }
    former
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Member<(&'static str, u32), (), u32>;

    /// What is to be carried out is a name and a version; the legacy of a member is the sum of the versions of those before.
    fn applied(present: &mut Vec<Test>, wanted: &[(&'static str, u32)]) -> (Vec<(&'static str, u32)>, Vec<Test>) {
        let mut started = Vec::new();
        let gone = reconcile(
            present,
            wanted.to_vec(),
            |present, wanted| present == wanted,
            |what| what.0,
            |what, predecessor: Option<Test>| {
                started.push(what);
                let legacy = predecessor.map(Member::end);
                Member::start(what, watch::channel(()).1, |stop| async move {
                    let before = match legacy {
                        Some(legacy) => legacy.await.unwrap(),
                        None => 0,
                    };
                    stop.cancelled().await;
                    before + what.1
                })
            },
        );
        (started, gone)
    }

    #[tokio::test]
    async fn what_is_the_same_goes_on_and_what_changed_succeeds_what_had_its_key() {
        let mut present = Vec::new();
        assert_eq!(applied(&mut present, &[("a", 1), ("b", 1)]).0, [("a", 1), ("b", 1)]);
        let (started, gone) = applied(&mut present, &[("c", 1), ("b", 1), ("a", 2)]);
        assert_eq!((started, gone.len()), (vec![("c", 1), ("a", 2)], 0));
        let (started, gone) = applied(&mut present, &[("a", 5), ("a", 2)]);
        assert_eq!(started, [("a", 5)], "the one that goes on is nobody's predecessor");
        assert_eq!(gone.iter().map(|member| member.what.0).collect::<Vec<_>>(), ["c", "b"]);
        let legacies = futures_util::future::join_all(present.drain(..).map(Member::end)).await;
        assert_eq!(legacies, [Some(5), Some(3)]);
    }

    #[tokio::test]
    async fn a_member_that_is_ended_is_told_before_anybody_waits() {
        let (told, mut is_told) = watch::channel(false);
        let member: Member<(), (), ()> = Member::start((), watch::channel(()).1, |stop| async move {
            stop.cancelled().await;
            told.send_replace(true);
        });
        let _end = member.end();
        is_told.wait_for(|told| *told).await.unwrap();
    }
}
