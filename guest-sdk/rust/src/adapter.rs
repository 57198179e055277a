//! Adapter from a plugin's types to the exports of the WIT package. Used by `export!` only.

use std::{cell::OnceCell, marker::PhantomData};

use crate::{
    Cluster, Lifecycle, Model, Tool, Value, bail,
    bindings::exports::ochopod::pod::{lifecycle, model, tools},
    log::install_panic_hook,
};

#[cfg(target_family = "wasm")]
mod exports;

/// Types given to `export!`, and one value of each per instance.
pub trait Plugin: 'static {
    /// Lifecycle of the pod.
    type Lifecycle: Lifecycle;
    /// Model of the cluster.
    type Model: Model;

    /// Calls with the instance's lifecycle.
    fn lifecycle<R>(call: impl FnOnce(&mut Self::Lifecycle) -> R) -> R;

    /// Calls with the instance's model.
    fn model<R>(call: impl FnOnce(&mut Self::Model) -> R) -> R;

    /// Creates all tools.
    fn tools() -> Vec<Box<dyn Tool>>;
}

thread_local! {
    /// Returns the setting `shell`, which the operator cannot override.
    static SHELL: OnceCell<bool> = const { OnceCell::new() };
}

/// Exports of the plugin. A component has one.
#[derive(Debug)]
pub struct Adapter<P>(PhantomData<P>);

impl<P: Plugin> Adapter<P> {
    /// Exists if the plugin's types implement the traits.
    pub const CHECKED: () = ();

    fn lifecycle<R>(call: impl FnOnce(&mut P::Lifecycle) -> crate::Result<R>) -> Result<R, String> {
        Self::fallible(call).map_err(|error| error.to_string())
    }

    fn fallible<R>(call: impl FnOnce(&mut P::Lifecycle) -> crate::Result<R>) -> crate::Result<R> {
        install_panic_hook();
        P::lifecycle(call)
    }

    /// Returns the setting `shell`. A rebuilt instance was never called for its settings.
    fn shell() -> bool {
        SHELL.with(|shell| *shell.get_or_init(|| P::Lifecycle::settings().shell))
    }
}

/// Functions of the interface `lifecycle`, which a component exports.
impl<P: Plugin> Adapter<P> {
    #[must_use]
    pub fn lifecycle_settings() -> lifecycle::LifecycleSettings {
        install_panic_hook();
        let settings = P::Lifecycle::settings();
        SHELL.with(|shell| _ = shell.set(settings.shell));
        settings.into()
    }

    pub fn initialize() -> Result<(), lifecycle::Failure> {
        Ok(Self::fallible(Lifecycle::initialize)?)
    }

    pub fn can_configure(cluster: &Cluster) -> Result<(), String> {
        Self::lifecycle(|l| l.can_configure(cluster))
    }

    pub fn configure(cluster: &Cluster) -> Result<lifecycle::Command, lifecycle::Failure> {
        let command = Self::fallible(|l| l.configure(cluster))?;
        Ok(command.resolved(Self::shell()).into())
    }

    pub fn ready(cluster: &Cluster, pid: u32) -> Result<(), String> {
        Self::lifecycle(|l| l.ready(cluster, pid))
    }

    pub fn configured(cluster: &Cluster) -> Result<Option<String>, String> {
        Self::lifecycle(|l| {
            l.configured(cluster)?;
            Ok(l.role())
        })
    }

    pub fn sanity_check(pid: u32) -> Result<lifecycle::Health, String> {
        Self::lifecycle(|l| {
            let metrics = match l.sanity_check(pid)? {
                Value::Null => String::new(),
                metrics @ Value::Object(_) => metrics.to_string(),
                other => bail!("sanity_check returned {other}, expected a JSON object"),
            };
            Ok(lifecycle::Health { metrics, role: l.role() })
        })
    }

    pub fn signaled(body: &str, pid: Option<u32>) -> Result<String, String> {
        Self::lifecycle(|l| {
            let body = if body.is_empty() { None } else { Some(serde_json::from_str(body)?) };
            match l.signaled(body, pid)? {
                Value::Null => Ok(String::new()),
                reply => Ok(reply.to_string()),
            }
        })
    }

    pub fn tear_down(pid: u32) -> Result<(), String> {
        Self::lifecycle(|l| l.tear_down(pid))
    }

    pub fn finalize() -> Result<(), String> {
        Self::lifecycle(Lifecycle::finalize)
    }
}

/// Functions of the interface `model`, which a component exports.
impl<P: Plugin> Adapter<P> {
    #[must_use]
    pub fn model_settings() -> model::ModelSettings {
        install_panic_hook();
        P::Model::settings().into()
    }

    pub fn probe(cluster: &Cluster) -> Result<Option<String>, String> {
        install_panic_hook();
        P::model(|m| m.probe(cluster)).map_err(|e| e.to_string())
    }

    pub fn reconcile(cluster: &Cluster) -> Result<(), String> {
        install_panic_hook();
        P::model(|m| m.reconcile(cluster)).map_err(|e| e.to_string())
    }
}

/// Functions of the interface `tools`, which a component exports.
impl<P: Plugin> Adapter<P> {
    #[must_use]
    pub fn list() -> Vec<tools::Tool> {
        install_panic_hook();
        P::tools().iter().map(|tool| tool.as_ref().into()).collect()
    }

    pub fn run(name: &str, arguments: &[String], uploads: &[String]) -> Result<tools::Output, String> {
        install_panic_hook();
        let tool = P::tools().into_iter().find(|tool| tool.name() == name);
        let mut tool = tool.ok_or_else(|| format!("unknown tool {name:?}"))?;
        tool.run(arguments, uploads).map(Into::into).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
