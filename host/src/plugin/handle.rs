//! A plugin, and what one pod calls of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};
use wasmtime::component::Component;

use super::{
    Command, Compiler, Engine, LifecycleSettings, LoadError, ModelSettings, PluginError, Services, Tool, ToolOutput,
    Wants,
    bindings::PluginPre,
    convert, cut, load,
    sandbox::Sandbox,
    store::State,
    worker::{Maker, Worker},
    world,
};
use crate::{cluster::PostedView, process};

/// Time that a plugin has to describe itself, per export.
const DESCRIBE: Duration = Duration::from_secs(2);
/// Longest text of a plugin's that an error carries.
const TEXT: usize = 8 << 10;
/// Most files, sockets, streams and requests that an instance may hold at once.
const RESOURCES: usize = 512;
/// As many it may hold anyway: with less not much can be done.
const FEW_RESOURCES: usize = 32;
/// The share of the host's descriptors that the lifecycle or the model may take, and that of each of the tools.
const SHARE: usize = 8;
const TOOL_SHARE: usize = 32;
/// Longest JSON text that a plugin may return.
const JSON: usize = 1 << 20;

/// What a plugin said about itself when it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Settings of its lifecycle, as declared.
    pub lifecycle: LifecycleSettings,
    /// Settings of its model, as declared.
    pub model: ModelSettings,
    /// What it needs beyond its sandbox.
    pub wants: Wants,
    /// What `POST /exec` may call.
    pub tools: Vec<Tool>,
}

/// A plugin that was loaded. Clones share everything.
#[derive(Clone)]
pub struct Plugin {
    engine: Arc<Engine>,
    code: PluginPre<State>,
    description: Arc<Description>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Loads a component (`.wasm`) or what `ochopod compile` made of one, and asks it to describe itself, which it does
    /// within `services` like everything later, but without any network. Without a cache directory, or where it cannot be used, a component is
    /// compiled each time.
    ///
    /// # Errors
    /// When the file is no plugin, does not fit this host, or fails to describe itself.
    pub async fn load(
        engine: &Arc<Engine>,
        path: &Path,
        cache: Option<&Path>,
        compiler: &Compiler,
        services: &Pod,
    ) -> Result<Self, LoadError> {
        let component = load::component(engine, path, cache, compiler).await?;
        world::check(path, &component)?;
        let link = |error: wasmtime::Error| LoadError::Link { path: path.to_owned(), reason: format!("{error:#}") };
        let code = engine.linker().and_then(|linker| linker.instantiate_pre(&component)).map_err(link)?;
        let code = PluginPre::new(code).map_err(link)?;
        let description = describe(path, engine, &code, services).await?;
        Ok(Self { engine: Arc::clone(engine), code, description: Arc::new(description) })
    }

    /// What it said about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The lifecycle of one pod. Its instance is made by the first call.
    #[must_use]
    pub fn lifecycle(&self, pod: &Pod) -> Lifecycle {
        Lifecycle { worker: Worker::start("lifecycle", self.maker(pod)), pod: pod.clone() }
    }

    /// The model of one pod, in an instance of its own.
    #[must_use]
    pub fn model(&self, pod: &Pod) -> Model {
        Model { worker: Worker::start("model", self.maker(pod)), pod: pod.clone() }
    }

    /// Runs a tool in a fresh instance, which sees the uploaded files under `/uploads`.
    ///
    /// # Errors
    /// When the tool fails, traps, or takes longer than `limit`.
    ///
    /// # Cancellation safety
    /// Dropping the future ends the run.
    pub async fn run_tool(
        &self,
        pod: &Pod,
        name: String,
        arguments: Vec<String>,
        uploads: Uploads,
        limit: Duration,
    ) -> Result<ToolOutput, PluginError> {
        let maker = Maker { uploads: uploads.directory, resources: resources(TOOL_SHARE), ..self.maker(pod) };
        let worker = Worker::start("tool", maker);
        let run = worker.call("run", limit, move |exports, store| {
            Box::pin(
                async move { exports.ochopod_pod_tools().call_run(store, &name, &arguments, &uploads.names).await },
            )
        });
        let output = run.await?.map_err(rejected)?;
        Ok(ToolOutput { code: output.code, stdout: output.stdout })
    }

    pub(super) fn code(&self) -> (&Component, &wasmtime::Engine) {
        (self.code.instance_pre().component(), self.engine.wasm())
    }

    fn maker(&self, pod: &Pod) -> Maker {
        let (engine, sandbox) = (Arc::clone(&self.engine), pod.0.clone());
        Maker { engine, code: self.code.clone(), sandbox, uploads: None, resources: resources(SHARE) }
    }
}

/// How much an instance may hold that takes this share, so that its host does not run out of descriptors.
fn resources(share: usize) -> usize {
    process::most_descriptors().map_or(RESOURCES, |most| (most / share).clamp(FEW_RESOURCES, RESOURCES))
}

async fn describe(
    path: &Path,
    engine: &Arc<Engine>,
    code: &PluginPre<State>,
    pod: &Pod,
) -> Result<Description, LoadError> {
    let (engine, sandbox) = (Arc::clone(engine), pod.0.shut());
    let maker = Maker { engine, code: code.clone(), sandbox, uploads: None, resources: resources(SHARE) };
    let worker = Worker::start("settings", maker);
    let wrong = |callback| move |reason| LoadError::Describe { path: path.to_owned(), callback, reason };
    let failed = |callback| {
        move |error| match error {
            PluginError::Sandbox(reason) => LoadError::Sandbox { reason },
            other => wrong(callback)(other.to_string()),
        }
    };
    let lifecycle = worker.call("settings", DESCRIBE, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_lifecycle().call_settings(store).await })
    });
    let lifecycle = lifecycle.await.map_err(failed("lifecycle.settings"))?;
    let (lifecycle, wants) = convert::lifecycle_settings(lifecycle).map_err(wrong("lifecycle.settings"))?;
    let model = worker.call("settings", DESCRIBE, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_model().call_settings(store).await })
    });
    let model = model.await.map_err(failed("model.settings"))?;
    let model = convert::model_settings(model).map_err(wrong("model.settings"))?;
    let tools = worker.call("list", DESCRIBE, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_tools().call_list(store).await })
    });
    let tools = tools.await.map_err(failed("tools.list"))?;
    let tools = convert::tools(tools).map_err(wrong("tools.list"))?;
    Ok(Description { lifecycle, model, wants, tools })
}

/// What one pod lends to its plugin, shared by the instances: grants, what is known of the peers, the sub-process.
#[derive(Debug, Clone)]
pub struct Pod(Sandbox);

impl Pod {
    /// The surroundings of one pod's instances.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(Sandbox::new(services))
    }

    /// A view as its guests see it; its pods are the peers from now on.
    fn cluster(&self, posted: &PostedView) -> super::bindings::ochopod::pod::types::Cluster {
        self.0.gate.learn(posted);
        convert::cluster(&self.0.services.cluster, posted)
    }
}

/// Uploaded files that a tool sees.
#[derive(Debug, Clone, Default)]
pub struct Uploads {
    /// Where they are, when there are any.
    pub directory: Option<PathBuf>,
    /// Their names.
    pub names: Vec<String>,
}

/// Calls a callback of the lifecycle and flattens what the plugin says and what befell it.
macro_rules! call {
    ($self:ident, $callback:literal, $limit:ident, $interface:ident . $export:ident ( $($argument:expr),* )) => {
        $self.worker.call($callback, $limit, move |exports, store| {
            Box::pin(async move { exports.$interface().$export(store $(, $argument)*).await })
        }).await?.map_err(rejected)
    };
}

/// The lifecycle callbacks of one pod. They run one at a time.
///
/// Every callback fails when the plugin refuses, traps, exceeds a bound or does not end within `limit`. Dropping the
/// future of a callback ends it, and costs the instance but not its budget of rebuilds.
#[derive(Debug)]
pub struct Lifecycle {
    worker: Worker,
    pod: Pod,
}

impl Lifecycle {
    /// Once per pod, before the first [`Self::configure`].
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn initialize(&self, limit: Duration) -> Result<(), PluginError> {
        call!(self, "initialize", limit, ochopod_pod_lifecycle.call_initialize())
    }

    /// The pre-check of a configuration.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn can_configure(&self, view: &PostedView, limit: Duration) -> Result<(), PluginError> {
        let cluster = self.pod.cluster(view);
        call!(self, "can-configure", limit, ochopod_pod_lifecycle.call_can_configure(&cluster))
    }

    /// What to run for this view.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when what it returned cannot be run.
    pub async fn configure(&self, view: &PostedView, limit: Duration) -> Result<Command, PluginError> {
        let cluster = self.pod.cluster(view);
        let command = call!(self, "configure", limit, ochopod_pod_lifecycle.call_configure(&cluster))?;
        convert::command(command).map_err(rejected)
    }

    /// All pods were configured.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn configured(&self, view: &PostedView, limit: Duration) -> Result<(), PluginError> {
        let cluster = self.pod.cluster(view);
        call!(self, "configured", limit, ochopod_pod_lifecycle.call_configured(&cluster))
    }

    /// Checks the running sub-process. Returns its metrics.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when what it returned is no JSON object.
    pub async fn sanity_check(&self, pid: u32, limit: Duration) -> Result<Map<String, Value>, PluginError> {
        let text = call!(self, "sanity-check", limit, ochopod_pod_lifecycle.call_sanity_check(pid))?;
        match json("sanity-check", &text)? {
            Value::Object(metrics) => Ok(metrics),
            _ => Err(rejected(format!("sanity-check returned JSON that is no object: {text}"))),
        }
    }

    /// User logic. Returns its JSON.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when what it returned is no JSON.
    pub async fn signaled(
        &self,
        body: Option<&Value>,
        pid: Option<u32>,
        limit: Duration,
    ) -> Result<Value, PluginError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let text = call!(self, "signaled", limit, ochopod_pod_lifecycle.call_signaled(&body, pid))?;
        json("signaled", &text)
    }

    /// Makes the running sub-process end.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn tear_down(&self, pid: u32, limit: Duration) -> Result<(), PluginError> {
        call!(self, "tear-down", limit, ochopod_pod_lifecycle.call_tear_down(pid))
    }

    /// Once, when the pod dies or the host stops.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn finalize(&self, limit: Duration) -> Result<(), PluginError> {
        call!(self, "finalize", limit, ochopod_pod_lifecycle.call_finalize())
    }
}

/// The model callback of one pod.
#[derive(Debug)]
pub struct Model {
    worker: Worker,
    pod: Pod,
}

impl Model {
    /// What the plugin has to say about the cluster; none when there is nothing.
    ///
    /// # Errors
    /// As those of [`Lifecycle`], whose words on cancellation hold here too.
    pub async fn probe(&self, view: &PostedView, limit: Duration) -> Result<Option<String>, PluginError> {
        let cluster = self.pod.cluster(view);
        let status = call!(self, "probe", limit, ochopod_pod_model.call_probe(&cluster))?;
        Ok(status.map(|status| cut(&status, TEXT).to_owned()))
    }
}

fn rejected(text: String) -> PluginError {
    PluginError::Rejected(if text.len() > TEXT { cut(&text, TEXT).to_owned() } else { text })
}

/// JSON that a callback returned; an empty object when the text is empty.
fn json(callback: &str, text: &str) -> Result<Value, PluginError> {
    if text.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    if text.len() > JSON {
        return Err(rejected(format!("{callback} returned {} bytes, expected at most {JSON}", text.len())));
    }
    serde_json::from_str(text).map_err(|error| rejected(format!("{callback} returned what is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_callback_returns_is_json_or_the_plugins_fault() {
        assert_eq!(super::json("signaled", "").unwrap(), json!({}));
        assert_eq!(super::json("signaled", "[1]").unwrap(), json!([1]));
        for bad in ["{", "nonsense", &"[".repeat(10_000), &format!("\"{}\"", "x".repeat(JSON))] {
            let error = super::json("signaled", bad).unwrap_err();
            assert!(matches!(&error, PluginError::Rejected(text) if text.starts_with("signaled returned")), "{error}");
        }
    }

    #[test]
    fn a_long_refusal_is_cut() {
        let error = rejected("é".repeat(TEXT));
        assert!(error.to_string().len() <= TEXT);
    }
}
