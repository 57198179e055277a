//! A plugin without the SDK that misuses the handle of a view: it keeps it after the callback, or drops it twice.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]

use std::sync::atomic::{AtomicU32, Ordering};

use exports::ochopod::pod::{
    lifecycle::{self, ChangePolicy, Command, Failure, Health, LifecycleSettings},
    model::{self, BatchSize, ModelSettings},
    tools::{self, Output, Tool},
};
use ochopod::pod::types::{Cluster, Wants};

wit_bindgen::generate!({ world: "plugin", path: "../../../wit" });

/// Handle of the view of the last `configure`.
static KEPT: AtomicU32 = AtomicU32::new(0);

struct Guest;

impl lifecycle::Guest for Guest {
    fn settings() -> LifecycleSettings {
        let wants =
            Wants { directories: Vec::new(), network: Vec::new(), programs: Vec::new(), environment: Vec::new() };
        LifecycleSettings {
            check_every: 60.0,
            checks: 1,
            on_change: ChangePolicy::Restart,
            ready_within: 60.0,
            cwd: None,
            grace: 60.0,
            pipe_subprocess: false,
            shell: false,
            soft: false,
            strict: false,
            wants,
        }
    }

    fn initialize() -> Result<(), Failure> {
        Ok(())
    }

    /// Drops the view, which is dropped again at the end.
    fn can_configure(cluster: &Cluster) -> Result<(), String> {
        // SAFETY: the host checks each handle.
        drop(unsafe { Cluster::from_handle(cluster.handle()) });
        Ok(())
    }

    fn configure(cluster: &Cluster) -> Result<Command, Failure> {
        KEPT.store(cluster.handle(), Ordering::Relaxed);
        let arguments = vec![cluster.size().to_string()];
        Ok(Command { program: "true".to_owned(), arguments, environment: Vec::new(), reload: None })
    }

    fn ready(cluster: &Cluster, _: u32) -> Result<(), String> {
        Err(format!("{} of {}", cluster.index(), cluster.size()))
    }

    fn configured(_: &Cluster) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// Uses the view of the last `configure`.
    fn sanity_check(_: u32) -> Result<Health, String> {
        // SAFETY: the host checks each handle.
        let cluster = unsafe { Cluster::from_handle(KEPT.load(Ordering::Relaxed)) };
        Err(format!("the view still has {} pods", cluster.size()))
    }

    fn signaled(_: String, _: Option<u32>) -> Result<String, String> {
        Ok(String::new())
    }

    fn tear_down(_: u32) -> Result<(), String> {
        Ok(())
    }

    fn finalize() -> Result<(), String> {
        Ok(())
    }
}

impl model::Guest for Guest {
    fn settings() -> ModelSettings {
        ModelSettings {
            batch: BatchSize::All,
            damper: 0.0,
            depends_on: Vec::new(),
            full_shutdown: false,
            grace: 60.0,
            probe_every: 60.0,
            sequential: false,
            tolerate: 0,
        }
    }

    fn probe(_: &Cluster) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn reconcile(_: &Cluster) -> Result<(), String> {
        Ok(())
    }
}

impl tools::Guest for Guest {
    fn list() -> Vec<Tool> {
        Vec::new()
    }

    fn run(name: String, _: Vec<String>, _: Vec<String>) -> Result<Output, String> {
        Err(name)
    }
}

export!(Guest);
