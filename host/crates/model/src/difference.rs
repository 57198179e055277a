//! Differences between views: what a leader sends to a pod that holds an earlier view, and the views that a pod holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{ContentDigest, PodId, Pods, PostedView, Registration, View, json};

/// Entry of [`CAPABILITIES`] of pods that accept differences between views.
pub const DIFFERENCES: &str = "view-difference";
/// Entry of [`CAPABILITIES`] of pods that accept request bodies compressed with gzip.
pub const COMPRESSED_BODIES: &str = "gzip";
/// Key of a registration that lists what the pod accepts beyond the protocol of the Python SDK.
pub const CAPABILITIES: &str = "_capabilities";

/// Views that a pod holds: the newest one, and the one before in case the reply to the newest was lost.
const MAX_HELD: usize = 2;
/// Maximum size of a view that is made from differences, as JSON.
const MAX_VIEW_BYTES: usize = 32 * 1024 * 1024;

/// Registrations that changed; none for those that are gone.
type Changes = BTreeMap<PodId, Option<Arc<Registration>>>;

/// Body of a request that names its view instead of containing it.
///
/// With `base`, the named view is the base with these changes; the pod holds it from then on. Without, it is held already,
/// and `dropped` lists the pods that left it since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewDifference {
    /// The view that is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<ContentDigest>,
    /// Changed pods of the cluster.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pods: Changes,
    /// Changed dependencies; none for those that are gone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dependencies: BTreeMap<String, Option<Changes>>,
    /// Pods that are not in the view any longer.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    dropped: BTreeSet<PodId>,
    /// Pods whose start was requested before, in the same configuration.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    started: BTreeSet<PodId>,
}

/// A view that cannot be made from a difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DifferenceError {
    /// Not the expected JSON.
    #[error("invalid view difference: {0}")]
    Parse(String),
    /// The receiver is not among the pods.
    #[error("invalid view difference: pod {0:?} is not among the pods")]
    Target(String),
    /// The view would be too large.
    #[error("view too large: limit is {MAX_VIEW_BYTES} bytes")]
    Size,
    /// This pod does not hold the view, or not the one that is changed.
    #[error("view {0:.16} not held: send the whole view")]
    NotHeld(ContentDigest),
    /// The result has another digest.
    #[error("view difference does not result in view {0:.16}: send the whole view")]
    Mismatch(ContentDigest),
}

impl ViewDifference {
    /// Returns the difference from one view to another.
    #[must_use]
    pub fn between(base: &View, base_digest: ContentDigest, target: &View) -> Self {
        let gone = base.dependencies.keys().filter(|name| !target.dependencies.contains_key(*name));
        let mut dependencies: BTreeMap<String, Option<Changes>> = gone.map(|name| (name.clone(), None)).collect();
        for (name, pods) in &target.dependencies {
            let before = base.dependencies.get(name);
            let changed = changes(before.unwrap_or(&Pods::new()), pods);
            if before.is_none() || !changed.is_empty() {
                dependencies.insert(name.clone(), Some(changed));
            }
        }
        let pods = changes(&base.pods, &target.pods);
        Self { base: Some(base_digest), pods, dependencies, ..Self::default() }
    }

    /// Returns the description of a view that is held, without these pods.
    #[must_use]
    pub fn dropping(dropped: BTreeSet<PodId>) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// Returns the same difference with the pods whose start was requested before.
    #[must_use]
    pub fn with_started(&self, started: BTreeSet<PodId>) -> Self {
        Self { started, ..self.clone() }
    }

    /// Returns the pods that are gone, if that is all that differs.
    #[must_use]
    pub fn only_dropped(&self) -> Option<BTreeSet<PodId>> {
        let is_only = self.dependencies.is_empty() && self.pods.values().all(Option::is_none);
        is_only.then(|| self.pods.keys().cloned().collect())
    }

    /// Returns the number of registrations that changed.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.pods.len() + self.dependencies.values().flatten().map(BTreeMap::len).sum::<usize>()
    }

    /// Changes the base to the view that results.
    fn apply_to(&self, view: &mut View) {
        apply(&mut view.pods, &self.pods);
        for (name, changed) in &self.dependencies {
            match changed {
                Some(changed) => apply(view.dependencies.entry(name.clone()).or_default(), changed),
                None => _ = view.dependencies.remove(name),
            }
        }
    }
}

fn changes(before: &Pods, after: &Pods) -> Changes {
    let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| (id.clone(), None));
    let is_kept = |id: &PodId, pod: &Arc<Registration>| {
        before.get(id).is_some_and(|known| Arc::ptr_eq(known, pod) || known.content() == pod.content())
    };
    let changed = after.iter().filter(|(id, pod)| !is_kept(id, pod));
    gone.chain(changed.map(|(id, pod)| (id.clone(), Some(Arc::clone(pod))))).collect()
}

fn apply(pods: &mut Pods, changes: &Changes) {
    for (id, change) in changes {
        match change {
            Some(pod) => _ = pods.insert(id.clone(), Arc::clone(pod)),
            None => _ = pods.remove(id),
        }
    }
}

/// Returns the size of a view as JSON, without punctuation.
fn size(view: &View) -> usize {
    let pods = view.pods.iter().chain(view.dependencies.values().flatten());
    pods.map(|(id, pod)| id.as_str().len() + pod.json().len()).sum()
}

/// The views that a pod holds, by their digests.
#[derive(Debug, Default)]
pub struct HeldViews {
    /// The newest first.
    views: VecDeque<(ContentDigest, Arc<View>)>,
    /// The difference from the view before to the newest one, if that was made from it. With it, the view before becomes a copy
    /// of the newest one: copying all of a large view takes much longer.
    newest_change: Option<ViewDifference>,
}

impl HeldViews {
    /// Returns the newest view.
    #[must_use]
    pub fn newest(&self) -> Option<(&ContentDigest, &Arc<View>)> {
        self.views.front().map(|(digest, view)| (digest, view))
    }

    /// Holds a view with this digest, unless it is the newest one already.
    pub fn hold(&mut self, digest: ContentDigest, view: Arc<View>) {
        if self.newest().is_some_and(|(newest, _)| *newest == digest) {
            return;
        }
        self.views.retain(|(held, _)| *held != digest);
        self.views.push_front((digest, view));
        self.views.truncate(MAX_HELD);
        self.newest_change = None;
    }

    /// Returns the view that a request names, as its target receives it.
    ///
    /// # Errors
    /// If the body is invalid, the view or its base is not held, or the difference does not result in the named view. The newest
    /// view is unchanged then.
    pub fn resolve(
        &mut self,
        named: &ContentDigest,
        target: PodId,
        body: &[u8],
    ) -> Result<PostedView, DifferenceError> {
        let difference: ViewDifference = match body {
            [] => ViewDifference::default(),
            body => json::parse_object(body).map_err(DifferenceError::Parse)?,
        };
        let is_of_newest = difference.base.as_ref() == self.newest().map(|(digest, _)| digest);
        let (mut view, change) = match self.get(named) {
            Some(view) => (view, None),
            None => (self.changed(named, &difference)?, is_of_newest.then(|| difference.clone())),
        };
        if !view.pods.contains_key(&target) || difference.dropped.contains(&target) {
            return Err(DifferenceError::Target(target.excerpt()));
        }
        self.hold(named.clone(), Arc::clone(&view));
        self.newest_change = change.or(self.newest_change.take());
        if !difference.dropped.is_empty() {
            let mut left = View::clone(&view);
            left.pods.retain(|id, _| !difference.dropped.contains(id));
            view = Arc::new(left);
        }
        Ok(PostedView { key: target, started: difference.started, view })
    }

    fn get(&self, digest: &ContentDigest) -> Option<Arc<View>> {
        self.views.iter().find(|(held, _)| held == digest).map(|(_, view)| Arc::clone(view))
    }

    /// Turns the view before the newest one into a copy of it, if that is the one with this digest and nothing else uses the
    /// view before.
    fn take_copy_of(&mut self, newest: &ContentDigest) -> Option<View> {
        let [(digest, _), _] = self.views.make_contiguous() else { return None };
        if digest != newest {
            return None;
        }
        let change = self.newest_change.take()?;
        let (digest, before) = self.views.pop_back()?;
        match Arc::try_unwrap(before) {
            Ok(mut view) => {
                change.apply_to(&mut view);
                Some(view)
            }
            Err(before) => {
                self.views.push_back((digest, before));
                None
            }
        }
    }

    /// Returns the view that results from a change of one that is held.
    fn changed(&mut self, named: &ContentDigest, difference: &ViewDifference) -> Result<Arc<View>, DifferenceError> {
        let base = difference.base.as_ref().ok_or_else(|| DifferenceError::NotHeld(named.clone()))?;
        let held = self.get(base).ok_or_else(|| DifferenceError::NotHeld(base.clone()))?;
        let mut view = self.take_copy_of(base).unwrap_or_else(|| View::clone(&held));
        difference.apply_to(&mut view);
        if size(&view) > MAX_VIEW_BYTES {
            return Err(DifferenceError::Size);
        }
        if ContentDigest::of(&view) != *named {
            return Err(DifferenceError::Mismatch(named.clone()));
        }
        Ok(Arc::new(view))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn registration(seq: u64, status: &str) -> Arc<Registration> {
        let fields = json!({"seq": seq, "status": status});
        Arc::new(Registration::from_fields(fields.as_object().unwrap().clone()).unwrap())
    }

    fn pods(of: &[(&str, u64, &str)]) -> Pods {
        of.iter().map(|(id, seq, status)| (PodId::from(*id), registration(*seq, status))).collect()
    }

    fn view(of: &[(&str, u64, &str)]) -> Arc<View> {
        Arc::new(View { pods: pods(of), ..View::default() })
    }

    fn body(difference: &ViewDifference) -> Vec<u8> {
        serde_json::to_vec(difference).unwrap()
    }

    fn any_pods() -> impl Strategy<Value = Pods> {
        let pod = ("[a-e]", 0_u64..3, prop_oneof![Just(""), Just("dead")]);
        prop::collection::vec(pod, 0..6)
            .prop_map(|pods| pods.into_iter().map(|(id, seq, status)| (PodId::from(&*id), registration(seq, status))))
            .prop_map(Iterator::collect)
    }

    fn any_view() -> impl Strategy<Value = View> {
        (any_pods(), prop::collection::btree_map("[x-z]", any_pods(), 0..3))
            .prop_map(|(pods, dependencies)| View { pods, dependencies })
    }

    proptest! {
        #[test]
        fn difference_turns_one_view_into_the_other(base in any_view(), mut target in any_view()) {
            let own = PodId::from("own");
            target.pods.insert(own.clone(), registration(9, ""));
            let difference = ViewDifference::between(&base, ContentDigest::of(&base), &target);
            let mut held = HeldViews::default();
            held.hold(ContentDigest::of(&base), Arc::new(base));
            let named = ContentDigest::of(&target);
            let posted = held.resolve(&named, own, &body(&difference)).unwrap();
            prop_assert_eq!(&*posted.view, &target);
            prop_assert_eq!(held.newest(), Some((&named, &posted.view)));
        }

        #[test]
        fn differences_in_a_row_result_in_each_view(targets in prop::collection::vec(any_view(), 1..6)) {
            let (own, mut held, mut last) = (PodId::from("own"), HeldViews::default(), View::default());
            held.hold(ContentDigest::of(&last), Arc::new(last.clone()));
            for mut target in targets {
                target.pods.insert(own.clone(), registration(9, ""));
                let difference = ViewDifference::between(&last, ContentDigest::of(&last), &target);
                let named = ContentDigest::of(&target);
                let posted = held.resolve(&named, own.clone(), &body(&difference)).unwrap();
                prop_assert_eq!(&*posted.view, &target);
                // Later requests name it only.
                prop_assert_eq!(&*held.resolve(&named, own.clone(), b"").unwrap().view, &target);
                last = target;
            }
        }

        #[test]
        fn any_body_is_an_error_or_a_view_of_the_named_digest(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut held = HeldViews::default();
            let base = view(&[("a", 0, "")]);
            held.hold(ContentDigest::of(&base), Arc::clone(&base));
            let named = ContentDigest::of(&base);
            if let Ok(posted) = held.resolve(&named, PodId::from("a"), &bytes) {
                prop_assert_eq!(posted.view, base);
            }
        }
    }

    #[test]
    fn named_view_is_used_without_the_pods_dropped_since_and_stays_held() {
        let mut held = HeldViews::default();
        let base = view(&[("a", 0, ""), ("b", 1, ""), ("c", 2, "")]);
        held.hold(ContentDigest::of(&base), Arc::clone(&base));
        let named = ContentDigest::of(&base);
        for _ in 0..2 {
            let posted = held.resolve(&named, PodId::from("a"), br#"{"dropped":["b"],"started":["c"]}"#).unwrap();
            assert_eq!(posted.view, view(&[("a", 0, ""), ("c", 2, "")]));
            assert_eq!(posted.started, BTreeSet::from([PodId::from("c")]));
        }
        assert_eq!(held.resolve(&named, PodId::from("a"), b"").unwrap().view, base);
        let target = held.resolve(&named, PodId::from("b"), br#"{"dropped":["b"]}"#);
        assert_eq!(target, Err(DifferenceError::Target("b".to_owned())));
    }

    #[test]
    fn view_that_is_not_held_and_another_result_are_rejected_and_change_nothing() {
        let mut held = HeldViews::default();
        let views = [view(&[("a", 0, "")]), view(&[("a", 1, "")]), view(&[("a", 2, "")])];
        let digests = views.each_ref().map(|view| ContentDigest::of(view));
        let unknown = held.resolve(&digests[0], PodId::from("a"), b"");
        assert_eq!(unknown, Err(DifferenceError::NotHeld(digests[0].clone())));
        for view in &views {
            held.hold(ContentDigest::of(view), Arc::clone(view));
        }
        assert_eq!(held.resolve(&digests[0], PodId::from("a"), b""), Err(DifferenceError::NotHeld(digests[0].clone())));
        let difference = ViewDifference::between(&views[1], digests[1].clone(), &views[0]);
        let other = ContentDigest::from("00");
        let mismatch = held.resolve(&other, PodId::from("a"), &body(&difference));
        assert_eq!(mismatch, Err(DifferenceError::Mismatch(other)));
        assert_eq!(held.newest(), Some((&digests[2], &views[2])));
        assert!(held.resolve(&digests[0], PodId::from("a"), &body(&difference)).is_ok(), "the one before is held too");
        for invalid in [&b"[]"[..], b"{", br#"{"pods":{"a":{}}}"#, br#"{"other":1}"#] {
            assert!(matches!(held.resolve(&digests[0], PodId::from("a"), invalid), Err(DifferenceError::Parse(_))));
        }
    }

    #[test]
    fn difference_of_statuses_alone_is_one() {
        let (before, after) = (view(&[("a", 0, ""), ("b", 1, "")]), view(&[("a", 0, "dead"), ("b", 1, "")]));
        let difference = ViewDifference::between(&before, ContentDigest::of(&before), &after);
        assert_eq!(difference.pods.len(), 1);
        assert_eq!(difference.only_dropped(), None);
        let dropped = ViewDifference::between(&before, ContentDigest::of(&before), &view(&[("a", 0, "")]));
        assert_eq!(dropped.only_dropped(), Some(BTreeSet::from([PodId::from("b")])));
    }

    #[test]
    fn views_cannot_grow_beyond_the_limit() {
        let mut held = HeldViews::default();
        let large = Value::from("x".repeat(MAX_VIEW_BYTES / 4));
        let fields = |seq: u64| json!({"seq": seq, "x": large}).as_object().unwrap().clone();
        let pod = |seq| Arc::new(Registration::from_fields(fields(seq)).unwrap());
        let mut last = View { pods: BTreeMap::from([(PodId::from("0"), pod(0))]), ..View::default() };
        held.hold(ContentDigest::of(&last), Arc::new(last.clone()));
        let mut results = Vec::new();
        for seq in 1..5 {
            let mut next = last.clone();
            next.pods.insert(PodId::from(&*seq.to_string()), pod(seq));
            let difference = ViewDifference::between(&last, ContentDigest::of(&last), &next);
            results.push(held.resolve(&ContentDigest::of(&next), PodId::from("0"), &body(&difference)).is_ok());
            last = next;
        }
        assert_eq!(results, [true, true, false, false]);
    }
}
