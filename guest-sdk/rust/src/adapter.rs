//! Turns a plugin's types into the exports of the WIT package. Used by `export!` only.

use std::{cell::OnceCell, marker::PhantomData};

use crate::{
    Lifecycle, Model, Tool, Value, bail,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
    log::hook_panics,
};

/// What `export!` was given: the types, and one value of each per instance.
pub trait Plugin: 'static {
    /// The pod's part.
    type Lifecycle: Lifecycle;
    /// The cluster's part.
    type Model: Model;

    /// Calls with the instance's lifecycle.
    fn lifecycle<R>(call: impl FnOnce(&mut Self::Lifecycle) -> R) -> R;

    /// Calls with the instance's model.
    fn model<R>(call: impl FnOnce(&mut Self::Model) -> R) -> R;

    /// New values of all tools.
    fn tools() -> Vec<Box<dyn Tool>>;
}

thread_local! {
    /// Whether the settings say `shell`: as the host runs the commands, for it cannot be overridden.
    static SHELL: OnceCell<bool> = const { OnceCell::new() };
}

/// The exports of a plugin. There is one plugin in a component.
#[derive(Debug)]
pub struct Adapter<P>(PhantomData<P>);

impl<P: Plugin> Adapter<P> {
    /// There is one when the plugin's types are what they should be.
    pub const CHECKED: () = ();

    fn lifecycle<R>(call: impl FnOnce(&mut P::Lifecycle) -> crate::Result<R>) -> Result<R, String> {
        hook_panics();
        P::lifecycle(call).map_err(|e| e.to_string())
    }

    /// A rebuilt instance was never asked for its settings.
    fn shell() -> bool {
        SHELL.with(|shell| *shell.get_or_init(|| P::Lifecycle::settings().shell))
    }
}

impl<P: Plugin> lifecycle::Guest for Adapter<P> {
    fn settings() -> lifecycle::LifecycleSettings {
        hook_panics();
        let settings = P::Lifecycle::settings();
        SHELL.with(|shell| _ = shell.set(settings.shell));
        settings.into()
    }

    fn initialize() -> Result<(), String> {
        Self::lifecycle(Lifecycle::initialize)
    }

    fn can_configure(cluster: types::Cluster) -> Result<(), String> {
        Self::lifecycle(|l| l.can_configure(&cluster.into()))
    }

    fn configure(cluster: types::Cluster) -> Result<lifecycle::Command, String> {
        let command = Self::lifecycle(|l| l.configure(&cluster.into()))?;
        Ok(command.resolved(Self::shell()).into())
    }

    fn configured(cluster: types::Cluster) -> Result<(), String> {
        Self::lifecycle(|l| l.configured(&cluster.into()))
    }

    fn sanity_check(pid: u32) -> Result<String, String> {
        Self::lifecycle(|l| match l.sanity_check(pid)? {
            Value::Null => Ok(String::new()),
            metrics @ Value::Object(_) => Ok(metrics.to_string()),
            other => bail!("sanity_check returned {other}, expected a JSON object"),
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
        hook_panics();
        P::Model::settings().into()
    }

    fn probe(cluster: types::Cluster) -> Result<Option<String>, String> {
        hook_panics();
        P::model(|m| m.probe(&cluster.into())).map_err(|e| e.to_string())
    }
}

impl<P: Plugin> tools::Guest for Adapter<P> {
    fn list() -> Vec<tools::Tool> {
        hook_panics();
        P::tools().iter().map(|tool| tool.as_ref().into()).collect()
    }

    fn run(name: String, arguments: Vec<String>, uploads: Vec<String>) -> Result<tools::Output, String> {
        hook_panics();
        let tool = P::tools().into_iter().find(|tool| tool.name() == name);
        let mut tool = tool.ok_or_else(|| format!("this plugin has no tool {name:?}"))?;
        tool.run(&arguments, &uploads).map(Into::into).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
