//! The view in native tests: the methods of the WIT package, by the rules that the host has.

use std::marker::PhantomData;

use ochopod_model::{ClusterName, ClusterView, PodView, PostedView};

use crate::bindings::ochopod::pod::types::Pod;

/// A view that a test has built.
#[derive(Debug)]
pub(crate) struct View<'a> {
    name: ClusterName,
    posted: PostedView,
    lifetime: PhantomData<&'a ()>,
}

impl View<'_> {
    pub(crate) fn new(name: ClusterName, posted: PostedView) -> Self {
        Self { name, posted, lifetime: PhantomData }
    }

    fn rules(&self) -> ClusterView<'_> {
        ClusterView::new(&self.name, &self.posted)
    }

    pub(crate) fn namespace(&self) -> String {
        self.name.namespace().to_owned()
    }

    pub(crate) fn name(&self) -> String {
        self.name.cluster().to_owned()
    }

    pub(crate) fn key(&self) -> String {
        self.rules().key().to_string()
    }

    pub(crate) fn index(&self) -> u32 {
        number(self.rules().index())
    }

    pub(crate) fn seq(&self) -> u64 {
        self.rules().seq()
    }

    pub(crate) fn size(&self) -> u32 {
        number(self.rules().size())
    }

    pub(crate) fn me(&self) -> Option<Pod> {
        self.rules().me().map(pod)
    }

    pub(crate) fn pod(&self, key: &str) -> Option<Pod> {
        self.rules().pod(key).map(pod)
    }

    pub(crate) fn oldest(&self) -> Option<Pod> {
        self.rules().oldest().map(pod)
    }

    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.rules().pods().map(pod).collect()
    }

    pub(crate) fn range(&self, start: u32, count: u32) -> Vec<Pod> {
        self.rules().range(start as usize, count as usize).map(pod).collect()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.rules().pods().map(|pod| pod.key().to_string()).collect()
    }

    pub(crate) fn roles(&self) -> Vec<String> {
        self.rules().pods().map(|pod| pod.role().to_owned()).collect()
    }

    pub(crate) fn addresses(&self, port: u16, public: bool) -> Result<Vec<String>, String> {
        self.rules().addresses(port, public).map_err(|error| error.to_string())
    }

    pub(crate) fn dependencies(&self) -> Vec<String> {
        self.rules().dependencies().map(str::to_owned).collect()
    }

    pub(crate) fn dependency(&self, name: &str) -> Option<Vec<Pod>> {
        self.rules().dependency(name).map(|pods| pods.map(pod).collect())
    }

    pub(crate) fn dependency_size(&self, name: &str) -> Option<u32> {
        self.rules().dependency(name).map(|pods| number(pods.len()))
    }

    pub(crate) fn grep(&self, dependency: &str, port: u16, public: bool) -> Result<String, String> {
        self.rules().grep(dependency, port, public).map_err(|error| error.to_string())
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn pod(pod: PodView<'_>) -> Pod {
    let text = |key| pod.text(key).to_owned();
    Pod {
        key: pod.key().to_string(),
        seq: pod.seq(),
        ip: text("ip"),
        public: text("public"),
        node: text("node"),
        application: text("application"),
        task: text("task"),
        status: text("status"),
        role: pod.role().to_owned(),
        started: pod.started(),
        port: pod.port(),
        ports: pod.ports().into_iter().collect(),
        settings: pod.settings().collect(),
    }
}
