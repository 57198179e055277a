//! Handle of one actor: what it was started with, its report and its final state.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// An actor for `what`. Dropping the handle kills it with its programs.
pub(super) struct ActorHandle<T, Report, FinalState> {
    pub(super) what: T,
    /// Its own report.
    pub(super) report: watch::Receiver<Report>,
    stop: CancellationToken,
    task: AbortOnDropHandle<FinalState>,
}

impl<T, Report, FinalState: Send + 'static> ActorHandle<T, Report, FinalState> {
    /// Starts an actor that exits when its token is cancelled.
    pub(super) fn start<Task>(
        what: T,
        report: watch::Receiver<Report>,
        task: impl FnOnce(CancellationToken) -> Task,
    ) -> Self
    where
        Task: Future<Output = FinalState> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(task(stop.clone())));
        Self { what, report, stop, task }
    }

    /// Stops it now. The future completes with its final state; none if it panicked.
    ///
    /// # Cancellation safety
    /// Dropping the future kills it with its programs.
    pub(super) fn stop(self) -> impl Future<Output = Option<FinalState>> + Send + 'static {
        self.stop.cancel();
        let task = self.task;
        async move { task.await.ok() }
    }
}

/// Makes the present actors the wanted ones. An actor for which `is_unchanged` holds continues. Each other wanted one is started
/// with its predecessor: an actor that is no longer wanted and has the same `key`. Returns the rest.
pub(super) fn reconcile<T, Report, FinalState, Key: PartialEq>(
    present: &mut Vec<ActorHandle<T, Report, FinalState>>,
    wanted: Vec<T>,
    is_unchanged: impl Fn(&T, &T) -> bool,
    key: impl Fn(&T) -> Key,
    mut start: impl FnMut(T, Option<ActorHandle<T, Report, FinalState>>) -> ActorHandle<T, Report, FinalState>,
) -> Vec<ActorHandle<T, Report, FinalState>> {
    let mut former = std::mem::take(present);
    let mut take = |is_it: &dyn Fn(&T) -> bool| {
        let index = former.iter().position(|member| is_it(&member.what))?;
        Some(former.remove(index))
    };
    // All of these first, so that none of them becomes a predecessor.
    let kept: Vec<_> = wanted.iter().map(|what| take(&|present| is_unchanged(present, what))).collect();
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

    type Test = ActorHandle<(&'static str, u32), (), u32>;

    /// Applies actors, each with a name and a version. The final state of one is the sum of the versions up to its own.
    fn applied(present: &mut Vec<Test>, wanted: &[(&'static str, u32)]) -> (Vec<(&'static str, u32)>, Vec<Test>) {
        let mut started = Vec::new();
        let gone = reconcile(
            present,
            wanted.to_vec(),
            |present, wanted| present == wanted,
            |what| what.0,
            |what, predecessor: Option<Test>| {
                started.push(what);
                let final_state = predecessor.map(ActorHandle::stop);
                ActorHandle::start(what, watch::channel(()).1, |stop| async move {
                    let before = match final_state {
                        Some(final_state) => final_state.await.unwrap(),
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
    async fn unchanged_actors_continue_and_changed_ones_succeed_those_of_the_same_key() {
        let mut present = Vec::new();
        assert_eq!(applied(&mut present, &[("a", 1), ("b", 1)]).0, [("a", 1), ("b", 1)]);
        let (started, gone) = applied(&mut present, &[("c", 1), ("b", 1), ("a", 2)]);
        assert_eq!((started, gone.len()), (vec![("c", 1), ("a", 2)], 0));
        let (started, gone) = applied(&mut present, &[("a", 5), ("a", 2)]);
        assert_eq!(started, [("a", 5)], "an actor that continues is not a predecessor");
        assert_eq!(gone.iter().map(|member| member.what.0).collect::<Vec<_>>(), ["c", "b"]);
        let final_states = futures_util::future::join_all(present.drain(..).map(ActorHandle::stop)).await;
        assert_eq!(final_states, [Some(5), Some(3)]);
    }

    #[tokio::test]
    async fn stop_takes_effect_before_the_future_is_awaited() {
        let (stopped_tx, mut stopped) = watch::channel(false);
        let member: ActorHandle<(), (), ()> = ActorHandle::start((), watch::channel(()).1, |stop| async move {
            stop.cancelled().await;
            stopped_tx.send_replace(true);
        });
        let _end = member.stop();
        stopped.wait_for(|stopped| *stopped).await.unwrap();
    }
}
