//! Bindings that wasmtime generates from `wit/`.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]

wasmtime::component::bindgen!({
    world: "plugin",
    path: "../../../wit",
    imports: { "ochopod:pod/exec.run": async, default: trappable },
    exports: { default: async },
    with: { "ochopod:pod/types.cluster": super::cluster::BorrowedCluster },
});
