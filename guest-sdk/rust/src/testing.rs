//! Views and mocks for native unit tests of plugins.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{Cluster, Dependency, Pod, exec};

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

/// Starts a view of these pods: `cluster([pod(0), pod(1)]).view_of(1)`.
#[must_use]
pub fn cluster(pods: impl IntoIterator<Item = Pod>) -> ClusterBuilder {
    ClusterBuilder { pods: by_key(pods), dependencies: BTreeMap::new() }
}

/// Builder of a view.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    pods: Vec<Pod>,
    dependencies: BTreeMap<String, Vec<Pod>>,
}

impl ClusterBuilder {
    /// Adds a dependency with these pods.
    #[must_use]
    pub fn dependency(mut self, name: &str, pods: impl IntoIterator<Item = Pod>) -> Self {
        self.dependencies.insert(name.to_owned(), by_key(pods));
        self
    }

    /// Returns the view of the pod with this `seq`.
    ///
    /// # Panics
    /// If no pod has this `seq`.
    #[must_use]
    pub fn view_of(&self, seq: u64) -> Cluster {
        let own = self.pods.iter().enumerate().find(|(_, pod)| pod.seq == seq);
        assert!(own.is_some(), "no pod of the view has seq {seq}");
        let (index, key) = own.map(|(index, pod)| (index, pod.key.clone())).unwrap_or_default();
        let dependencies = self.dependencies.clone().into_iter();
        Cluster {
            namespace: "test".to_owned(),
            name: "test".to_owned(),
            key,
            index,
            seq,
            size: self.pods.len(),
            pods: self.pods.clone(),
            dependencies: dependencies.map(|(name, pods)| Dependency { name, pods }).collect(),
        }
    }
}

fn by_key(pods: impl IntoIterator<Item = Pod>) -> Vec<Pod> {
    let mut pods: Vec<_> = pods.into_iter().collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    pods
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
