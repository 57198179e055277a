//! The view of a cluster as a resource that callbacks borrow.
//!
//! The view is in the store while a callback runs, and methods read from it. A guest's handle ends with the callback that
//! borrowed it. What a method returns is converted then, and its copy in the guest counts against the guest's memory.

use ochopod_model::{ClusterView, PodView, PostedView};
use wasmtime::component::Resource;

use super::{
    bindings::ochopod::pod::types::{HostCluster, Pod},
    store::StoreData,
};

/// The view that a callback borrows. There is one at a time, so the handle itself has no meaning.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings name it")]
pub struct BorrowedCluster;

impl StoreData {
    /// Lends a view to a guest until the end of the call.
    pub(super) fn lend(&mut self, view: PostedView) -> Resource<BorrowedCluster> {
        self.view = Some(view);
        Resource::new_borrow(0)
    }

    fn borrowed(&self) -> wasmtime::Result<ClusterView<'_>> {
        let view = self.view.as_ref().ok_or_else(|| wasmtime::Error::msg("view used outside of the callback"))?;
        Ok(ClusterView::new(&self.sandbox.services.cluster, view))
    }
}

impl HostCluster for StoreData {
    fn namespace(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<String> {
        Ok(self.borrowed()?.name().namespace().to_owned())
    }

    fn name(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<String> {
        Ok(self.borrowed()?.name().cluster().to_owned())
    }

    fn key(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<String> {
        Ok(self.borrowed()?.key().to_string())
    }

    fn index(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<u32> {
        Ok(number(self.borrowed()?.index()))
    }

    fn seq(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<u64> {
        Ok(self.borrowed()?.seq())
    }

    fn size(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<u32> {
        Ok(number(self.borrowed()?.size()))
    }

    fn me(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Option<Pod>> {
        Ok(self.borrowed()?.me().map(pod))
    }

    fn pod(&mut self, _: Resource<BorrowedCluster>, key: String) -> wasmtime::Result<Option<Pod>> {
        Ok(self.borrowed()?.pod(&key).map(pod))
    }

    fn oldest(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Option<Pod>> {
        Ok(self.borrowed()?.oldest().map(pod))
    }

    fn pods(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Vec<Pod>> {
        Ok(self.borrowed()?.pods().map(pod).collect())
    }

    fn range(&mut self, _: Resource<BorrowedCluster>, start: u32, count: u32) -> wasmtime::Result<Vec<Pod>> {
        Ok(self.borrowed()?.range(start as usize, count as usize).map(pod).collect())
    }

    fn keys(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Vec<String>> {
        Ok(self.borrowed()?.pods().map(|pod| pod.key().to_string()).collect())
    }

    fn roles(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Vec<String>> {
        Ok(self.borrowed()?.pods().map(|pod| pod.role().to_owned()).collect())
    }

    fn addresses(
        &mut self,
        _: Resource<BorrowedCluster>,
        port: u16,
        public: bool,
    ) -> wasmtime::Result<Result<Vec<String>, String>> {
        Ok(self.borrowed()?.addresses(port, public).map_err(|error| error.to_string()))
    }

    fn dependencies(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<Vec<String>> {
        Ok(self.borrowed()?.dependencies().map(str::to_owned).collect())
    }

    fn dependency(&mut self, _: Resource<BorrowedCluster>, name: String) -> wasmtime::Result<Option<Vec<Pod>>> {
        Ok(self.borrowed()?.dependency(&name).map(|pods| pods.map(pod).collect()))
    }

    fn dependency_size(&mut self, _: Resource<BorrowedCluster>, name: String) -> wasmtime::Result<Option<u32>> {
        Ok(self.borrowed()?.dependency(&name).map(|pods| number(pods.len())))
    }

    fn grep(
        &mut self,
        _: Resource<BorrowedCluster>,
        dependency: String,
        port: u16,
        public: bool,
    ) -> wasmtime::Result<Result<String, String>> {
        Ok(self.borrowed()?.grep(&dependency, port, public).map_err(|error| error.to_string()))
    }

    /// Does nothing: the view ends with the call, whether or not the guest drops its handle.
    fn drop(&mut self, _: Resource<BorrowedCluster>) -> wasmtime::Result<()> {
        Ok(())
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
