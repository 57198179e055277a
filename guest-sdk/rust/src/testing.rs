//! Views and mocks for native unit tests of plugins.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ochopod_model::{ClusterName, PodId, PostedView, Registration, View};

use crate::{Cluster, Pod, Value, cluster::native, exec, serde_json::Map};

/// Returns a pod with this `seq`, at 127.0.0.(2 + `seq`), without remapped ports. Change fields by struct update:
///
/// ```
/// # use ochopod_sdk::{Pod, testing};
/// let pod = Pod { ports: [(6379, 31000)].into(), ..testing::pod(3) };
/// assert_eq!(pod.address(6379, false)?, "127.0.0.5:31000");
/// # Ok::<(), ochopod_sdk::Error>(())
/// ```
#[must_use]
pub fn pod(seq: u64) -> Pod {
    let ip = format!("127.0.{}.{}", (seq + 2) / 256 % 256, (seq + 2) % 256);
    Pod {
        key: format!("pod-{seq:06}"),
        seq,
        public: ip.clone(),
        ip,
        node: "local".to_owned(),
        application: String::new(),
        task: String::new(),
        status: String::new(),
        role: String::new(),
        started: false,
        port: 8080,
        ports: BTreeMap::new(),
        settings: BTreeMap::new(),
    }
}

/// Starts a view of these pods: `cluster([pod(0), pod(1)]).view_of(1)`. The view follows the rules of the host.
///
/// # Panics
/// If two pods have the same key.
#[must_use]
pub fn cluster(pods: impl IntoIterator<Item = Pod>) -> ClusterBuilder {
    let pods: Vec<_> = pods.into_iter().collect();
    let started = pods.iter().filter(|pod| pod.started).map(|pod| PodId::from(pod.key.as_str())).collect();
    ClusterBuilder { view: View { pods: registered(pods), ..View::default() }, started }
}

/// Builder of a view.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    view: View,
    started: BTreeSet<PodId>,
}

impl ClusterBuilder {
    /// Adds a dependency with these pods.
    ///
    /// # Panics
    /// If two pods have the same key.
    #[must_use]
    pub fn dependency(mut self, name: &str, pods: impl IntoIterator<Item = Pod>) -> Self {
        self.view.dependencies.insert(name.to_owned(), registered(pods));
        self
    }

    /// Returns the view of the pod with this `seq`.
    ///
    /// # Panics
    /// If no pod has this `seq`.
    #[must_use]
    pub fn view_of(&self, seq: u64) -> Cluster<'static> {
        let key = self.view.pods.iter().find(|(_, pod)| pod.seq() == seq).map(|(key, _)| key.clone());
        assert!(key.is_some(), "no pod of the view has seq {seq}");
        let key = key.unwrap_or_else(PodId::random);
        let posted = PostedView { started: self.started.clone(), ..PostedView::new(key, Arc::new(self.view.clone())) };
        let name = ClusterName::new("test", "test").unwrap_or_default();
        Cluster(native::View::new(name, posted))
    }
}

/// Returns pods as they are registered, by key.
fn registered(pods: impl IntoIterator<Item = Pod>) -> BTreeMap<PodId, Arc<Registration>> {
    let mut registered = BTreeMap::new();
    for pod in pods {
        let key = PodId::from(pod.key.as_str());
        let known = registered.insert(key, Arc::new(registration(pod)));
        assert!(known.is_none(), "two pods have the same key");
    }
    registered
}

#[allow(clippy::expect_used, reason = "the number is present")]
fn registration(pod: Pod) -> Registration {
    let Pod { key: _, seq, ip, public, node, application, task, status, role, started: _, port, ports, settings } = pod;
    let mut fields: Map<String, Value> = settings.into_iter().map(|(key, text)| (key, Value::from(text))).collect();
    let texts = [ip, public, node, application, task, status].map(Value::from);
    let names = ["ip", "public", "node", "application", "task", "status"].map(str::to_owned);
    fields.extend(names.into_iter().zip(texts));
    fields.insert("seq".to_owned(), Value::from(seq));
    fields.insert("port".to_owned(), Value::from(port));
    let ports: Map<String, Value> = ports.into_iter().map(|(from, to)| (from.to_string(), Value::from(to))).collect();
    fields.insert("ports".to_owned(), Value::from(ports));
    Registration::from_fields(fields).expect("a registration has a number").with_role(&role)
}

type ExecMock = Box<dyn FnMut(&[String], &[u8]) -> Result<exec::Output, exec::Error>>;

thread_local! {
    static EXEC: RefCell<Option<ExecMock>> = const { RefCell::new(None) };
}

/// Mocks [`exec::run`] on this thread. `mock` gets the program with its arguments, and the input.
pub fn mock_exec(mock: impl FnMut(&[String], &[u8]) -> Result<exec::Output, exec::Error> + 'static) {
    EXEC.set(Some(Box::new(mock)));
}

pub(crate) fn mocked_exec(argv: &[String], stdin: &[u8]) -> Option<Result<exec::Output, exec::Error>> {
    EXEC.with_borrow_mut(|mock| mock.as_mut().map(|mock| mock(argv, stdin)))
}
