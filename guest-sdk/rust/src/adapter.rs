//! Adapter from a plugin's types to the exports of the WIT package. Used by `export!` only.

use std::{cell::OnceCell, marker::PhantomData};

use crate::{
    Lifecycle, Model, Tool, Value, bail,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
    log::install_panic_hook,
};

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

    /// A rebuilt instance was never called for its settings.
    fn shell() -> bool {
        SHELL.with(|shell| *shell.get_or_init(|| P::Lifecycle::settings().shell))
    }
}

impl<P: Plugin> lifecycle::Guest for Adapter<P> {
    fn settings() -> lifecycle::LifecycleSettings {
        install_panic_hook();
        let settings = P::Lifecycle::settings();
        SHELL.with(|shell| _ = shell.set(settings.shell));
        settings.into()
    }

    fn initialize() -> Result<(), lifecycle::Failure> {
        Ok(Self::fallible(Lifecycle::initialize)?)
    }

    fn can_configure(cluster: types::Cluster) -> Result<(), String> {
        Self::lifecycle(|l| l.can_configure(&cluster.into()))
    }

    fn configure(cluster: types::Cluster) -> Result<lifecycle::Command, lifecycle::Failure> {
        let command = Self::fallible(|l| l.configure(&cluster.into()))?;
        Ok(command.resolved(Self::shell()).into())
    }

    fn ready(cluster: types::Cluster, pid: u32) -> Result<(), String> {
        Self::lifecycle(|l| l.ready(&cluster.into(), pid))
    }

    fn configured(cluster: types::Cluster) -> Result<Option<String>, String> {
        Self::lifecycle(|l| {
            l.configured(&cluster.into())?;
            Ok(l.role())
        })
    }

    fn sanity_check(pid: u32) -> Result<lifecycle::Health, String> {
        Self::lifecycle(|l| {
            let metrics = match l.sanity_check(pid)? {
                Value::Null => String::new(),
                metrics @ Value::Object(_) => metrics.to_string(),
                other => bail!("sanity_check returned {other}, expected a JSON object"),
            };
            Ok(lifecycle::Health { metrics, role: l.role() })
        })
    }

    fn signaled(body: String, pid: Option<u32>) -> Result<String, String> {
        Self::lifecycle(|l| {
            let body = if body.is_empty() { None } else { Some(serde_json::from_str(&body)?) };
            match l.signaled(body, pid)? {
                Value::Null => Ok(String::new()),
                reply => Ok(reply.to_string()),
            }
        })
    }

    fn tear_down(pid: u32) -> Result<(), String> {
        Self::lifecycle(|l| l.tear_down(pid))
    }

    fn finalize() -> Result<(), String> {
        Self::lifecycle(Lifecycle::finalize)
    }
}

impl<P: Plugin> model::Guest for Adapter<P> {
    fn settings() -> model::ModelSettings {
        install_panic_hook();
        P::Model::settings().into()
    }

    fn probe(cluster: types::Cluster) -> Result<Option<String>, String> {
        install_panic_hook();
        P::model(|m| m.probe(&cluster.into())).map_err(|e| e.to_string())
    }

    fn reconcile(cluster: types::Cluster) -> Result<(), String> {
        install_panic_hook();
        P::model(|m| m.reconcile(&cluster.into())).map_err(|e| e.to_string())
    }
}

impl<P: Plugin> tools::Guest for Adapter<P> {
    fn list() -> Vec<tools::Tool> {
        install_panic_hook();
        P::tools().iter().map(|tool| tool.as_ref().into()).collect()
    }

    fn run(name: String, arguments: Vec<String>, uploads: Vec<String>) -> Result<tools::Output, String> {
        install_panic_hook();
        let tool = P::tools().into_iter().find(|tool| tool.name() == name);
        let mut tool = tool.ok_or_else(|| format!("unknown tool {name:?}"))?;
        tool.run(&arguments, &uploads).map(Into::into).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
