//! A loaded plugin, and the callbacks that one pod calls.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ochopod_init::process;
use ochopod_model::PostedView;
use serde_json::{Map, Value};
use wasmtime::component::Component;

use super::{
    Command, Compiler, Engine, LifecycleSettings, LoadError, ModelSettings, PluginError, SandboxConfig, Tool,
    ToolOutput, Wants,
    bindings::{PluginPre, exports::ochopod::pod::lifecycle},
    convert, load,
    sandbox::Sandbox,
    store::StoreData,
    truncate, wit_version,
    worker::{InstanceFactory, Worker},
};

/// Deadline of each export by which a plugin describes itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum length of a plugin's text in an error or a status.
const MAX_TEXT_BYTES: usize = 8 << 10;
/// Maximum number of files, sockets, streams and requests that an instance holds.
const MAX_RESOURCES: usize = 512;
/// The least that this limit is reduced to.
const MIN_RESOURCES: usize = 32;
/// Divisor of the host's descriptors for the lifecycle or the model; below, for each tool.
const FD_SHARE: usize = 8;
const TOOL_FD_SHARE: usize = 32;
/// Maximum length of JSON text that a plugin returns.
const MAX_JSON_BYTES: usize = 1 << 20;

/// Description that a plugin returned when it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Settings of its lifecycle, as declared.
    pub lifecycle: LifecycleSettings,
    /// Settings of its model, as declared.
    pub model: ModelSettings,
    /// Requests beyond the sandbox.
    pub wants: Wants,
    /// Tools for `POST /exec`.
    pub tools: Vec<Tool>,
}

/// A loaded plugin. Clones share everything.
#[derive(Clone)]
pub struct Plugin {
    engine: Arc<Engine>,
    code: PluginPre<StoreData>,
    digest: Arc<str>,
    description: Arc<Description>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Loads a component (`.wasm`), or one that `ochopod compile` compiled. The plugin describes itself within
    /// `sandbox`, but without any network. A component is compiled each time if there is no cache directory, or if it
    /// cannot be used.
    ///
    /// # Errors
    /// If the file is not a plugin for this host, or the plugin fails to describe itself.
    pub async fn load(
        engine: &Arc<Engine>,
        path: &Path,
        cache: Option<&Path>,
        compiler: &Compiler,
        sandbox: &PodSandbox,
    ) -> Result<Self, LoadError> {
        let (component, digest) = load::component(engine, path, cache, compiler).await?;
        wit_version::check(path, &component)?;
        let link = |error: wasmtime::Error| LoadError::Link { path: path.to_owned(), reason: format!("{error:#}") };
        let code = engine.linker().and_then(|linker| linker.instantiate_pre(&component)).map_err(link)?;
        let code = PluginPre::new(code).map_err(link)?;
        let description = describe(path, engine, &code, sandbox).await?;
        let digest = load::hex(&digest).into();
        Ok(Self { engine: Arc::clone(engine), code, digest, description: Arc::new(description) })
    }

    /// Loads a component as [`Self::load`] does, and rejects one that is compiled already: native code of a client.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub async fn load_component(
        engine: &Arc<Engine>,
        path: &Path,
        cache: Option<&Path>,
        compiler: &Compiler,
        sandbox: &PodSandbox,
    ) -> Result<Self, LoadError> {
        load::expect_component(path).await?;
        Self::load(engine, path, cache, compiler, sandbox).await
    }

    /// Returns the SHA-256 digest of the component, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the description of the plugin.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Creates the lifecycle of one pod. The first call builds its instance.
    #[must_use]
    pub fn lifecycle(&self, pod: &PodSandbox) -> Lifecycle {
        Lifecycle { worker: Worker::start("lifecycle", self.instance_factory(pod)), pod: pod.clone() }
    }

    /// Creates the model of one pod, in a separate instance.
    #[must_use]
    pub fn model(&self, pod: &PodSandbox) -> Model {
        Model { worker: Worker::start("model", self.instance_factory(pod)), pod: pod.clone() }
    }

    /// Runs a tool in a fresh instance, which sees the uploaded files under `/uploads`.
    ///
    /// # Errors
    /// If the tool fails, traps, or takes longer than `limit`.
    ///
    /// # Cancellation safety
    /// Dropping the future ends the run.
    pub async fn run_tool(
        &self,
        pod: &PodSandbox,
        name: String,
        arguments: Vec<String>,
        uploads: Uploads,
        limit: Duration,
    ) -> Result<ToolOutput, PluginError> {
        let instance_factory = InstanceFactory {
            uploads: uploads.directory,
            resources: resources(TOOL_FD_SHARE),
            ..self.instance_factory(pod)
        };
        let worker = Worker::start("tool", instance_factory);
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

    fn instance_factory(&self, pod: &PodSandbox) -> InstanceFactory {
        let (engine, sandbox) = (Arc::clone(&self.engine), pod.0.clone());
        InstanceFactory { engine, code: self.code.clone(), sandbox, uploads: None, resources: resources(FD_SHARE) }
    }
}

/// Returns how many resources an instance with this share may hold, so that the host does not run out of descriptors.
fn resources(share: usize) -> usize {
    process::max_descriptors().map_or(MAX_RESOURCES, |most| (most / share).clamp(MIN_RESOURCES, MAX_RESOURCES))
}

async fn describe(
    path: &Path,
    engine: &Arc<Engine>,
    code: &PluginPre<StoreData>,
    pod: &PodSandbox,
) -> Result<Description, LoadError> {
    let (engine, sandbox) = (Arc::clone(engine), pod.0.deny_all());
    let instance_factory =
        InstanceFactory { engine, code: code.clone(), sandbox, uploads: None, resources: resources(FD_SHARE) };
    let worker = Worker::start("settings", instance_factory);
    let invalid = |callback| move |reason| LoadError::Describe { path: path.to_owned(), callback, reason };
    let failed = |callback| {
        move |error| match error {
            PluginError::Sandbox(reason) => LoadError::Sandbox { reason },
            other => invalid(callback)(other.to_string()),
        }
    };
    let lifecycle = worker.call("settings", DESCRIBE_TIMEOUT, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_lifecycle().call_settings(store).await })
    });
    let lifecycle = lifecycle.await.map_err(failed("lifecycle.settings"))?;
    let (lifecycle, wants) = convert::lifecycle_settings(lifecycle).map_err(invalid("lifecycle.settings"))?;
    let model = worker.call("settings", DESCRIBE_TIMEOUT, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_model().call_settings(store).await })
    });
    let model = model.await.map_err(failed("model.settings"))?;
    let model = convert::model_settings(model).map_err(invalid("model.settings"))?;
    let tools = worker.call("list", DESCRIBE_TIMEOUT, |exports, store| {
        Box::pin(async move { exports.ochopod_pod_tools().call_list(store).await })
    });
    let tools = tools.await.map_err(failed("tools.list"))?;
    let tools = convert::tools(tools).map_err(invalid("tools.list"))?;
    Ok(Description { lifecycle, model, wants, tools })
}

/// Sandbox of one pod, shared by its instances: grants, peers, sub-process.
#[derive(Debug, Clone)]
pub struct PodSandbox(Sandbox);

impl PodSandbox {
    /// Creates the sandbox of one pod.
    #[must_use]
    pub fn new(sandbox: SandboxConfig) -> Self {
        Self(Sandbox::new(sandbox))
    }

    /// Returns the report about the pod's instances.
    pub(super) fn report(&self) -> &tokio::sync::watch::Sender<ochopod_model::status::PluginReport> {
        &self.0.services.report
    }

    /// Returns the sandbox of another plugin of the same pod: with the same limits and peers, and the loopback ports that
    /// this plugin declares.
    #[must_use]
    pub fn with_wants(&self, wants: &Wants) -> Self {
        Self(self.0.with_loopback(wants.loopback().collect()))
    }

    /// Takes over the peers of the same pod's other sandbox.
    pub(super) fn adopt_peers(&self, other: &Self) {
        self.0.policy.adopt_peers(&other.0.policy);
    }

    /// Returns a view for a guest. Its pods are the peers from now on.
    fn lend(&self, view: &PostedView) -> PostedView {
        self.0.policy.set_peers(view);
        view.clone()
    }
}

/// Uploaded files that a tool sees.
#[derive(Debug, Clone, Default)]
pub struct Uploads {
    /// Directory of the files, if there are any.
    pub directory: Option<PathBuf>,
    /// Names of the files.
    pub names: Vec<String>,
}

/// Calls a callback, and flattens the error that the plugin returned into that of the call. `lend` lends it a view.
macro_rules! call {
    ($self:ident, $callback:literal, $limit:ident, $interface:ident . $export:ident ( lend $($argument:tt)* )) => {
        call!($self, $callback, $limit, $interface.$export(lend $($argument)*); rejected)
    };
    (
        $self:ident, $callback:literal, $limit:ident,
        $interface:ident . $export:ident ( lend $view:ident $(, $argument:expr)* ); $convert:ident
    ) => {{
        let view = $self.pod.lend($view);
        $self.worker.call($callback, $limit, move |exports, store| {
            Box::pin(async move {
                let view = store.data_mut().lend(view);
                exports.$interface().$export(store, view $(, $argument)*).await
            })
        }).await?.map_err($convert)
    }};
    ($self:ident, $callback:literal, $limit:ident, $interface:ident . $export:ident ( $($argument:expr),* )) => {
        call!($self, $callback, $limit, $interface.$export($($argument),*); rejected)
    };
    (
        $self:ident, $callback:literal, $limit:ident, $interface:ident . $export:ident ( $($argument:expr),* );
        $convert:ident
    ) => {
        $self.worker.call($callback, $limit, move |exports, store| {
            Box::pin(async move { exports.$interface().$export(store $(, $argument)*).await })
        }).await?.map_err($convert)
    };
}

/// Lifecycle callbacks of one pod, which run one at a time.
///
/// A callback fails when the plugin returns an error, traps, exceeds a limit, or does not end within `limit`. Dropping
/// the future of a callback ends it and discards the instance, at no cost to the budget of rebuilds.
#[derive(Debug)]
pub struct Lifecycle {
    worker: Worker,
    pod: PodSandbox,
}

impl Lifecycle {
    /// Builds the instance without calling it.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn instantiate(&self, limit: Duration) -> Result<(), PluginError> {
        self.worker.call("instantiate", limit, |_, _| Box::pin(std::future::ready(Ok(())))).await
    }

    /// Initializes the pod, once before the first [`Self::configure`].
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn initialize(&self, limit: Duration) -> Result<(), PluginError> {
        call!(self, "initialize", limit, ochopod_pod_lifecycle.call_initialize(); failed)
    }

    /// Checks in advance whether the pod can be configured.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn can_configure(&self, view: &PostedView, limit: Duration) -> Result<(), PluginError> {
        call!(self, "can-configure", limit, ochopod_pod_lifecycle.call_can_configure(lend view))
    }

    /// Returns the command to run for this view.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when the returned command cannot be run.
    pub async fn configure(&self, view: &PostedView, limit: Duration) -> Result<Command, PluginError> {
        let command = call!(self, "configure", limit, ochopod_pod_lifecycle.call_configure(lend view); failed)?;
        convert::command(command).map_err(rejected)
    }

    /// Checks whether the running sub-process is ready. The error is the reason why it is not.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn ready(&self, view: &PostedView, pid: u32, limit: Duration) -> Result<(), PluginError> {
        call!(self, "ready", limit, ochopod_pod_lifecycle.call_ready(lend view, pid))
    }

    /// Notifies the plugin that all pods are configured. Returns the role of the pod, if the plugin names one.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn configured(&self, view: &PostedView, limit: Duration) -> Result<Option<String>, PluginError> {
        let role = call!(self, "configured", limit, ochopod_pod_lifecycle.call_configured(lend view))?;
        convert::role("configured", role).map_err(rejected)
    }

    /// Checks the running sub-process. Returns its metrics, and the role of the pod, if the plugin names one.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when the returned text is not a JSON object, or the role is invalid.
    pub async fn sanity_check(
        &self,
        pid: u32,
        limit: Duration,
    ) -> Result<(Map<String, Value>, Option<String>), PluginError> {
        let health = call!(self, "sanity-check", limit, ochopod_pod_lifecycle.call_sanity_check(pid))?;
        let role = convert::role("sanity-check", health.role).map_err(rejected)?;
        let text = health.metrics;
        match parse_json("sanity-check", &text)? {
            Value::Object(metrics) => Ok((metrics, role)),
            _ => Err(rejected(format!("sanity-check returned {text}: expected a JSON object"))),
        }
    }

    /// Handles `POST /control/signal`. Returns the JSON of the plugin.
    ///
    /// # Errors
    /// See [`Lifecycle`]; also when the returned text is not JSON.
    pub async fn signaled(
        &self,
        body: Option<&Value>,
        pid: Option<u32>,
        limit: Duration,
    ) -> Result<Value, PluginError> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let text = call!(self, "signaled", limit, ochopod_pod_lifecycle.call_signaled(&body, pid))?;
        parse_json("signaled", &text)
    }

    /// Terminates the running sub-process.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn tear_down(&self, pid: u32, limit: Duration) -> Result<(), PluginError> {
        call!(self, "tear-down", limit, ochopod_pod_lifecycle.call_tear_down(pid))
    }

    /// Finalizes the pod, once when it dies or the host shuts down.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn finalize(&self, limit: Duration) -> Result<(), PluginError> {
        call!(self, "finalize", limit, ochopod_pod_lifecycle.call_finalize())
    }
}

/// Model callback of one pod.
#[derive(Debug)]
pub struct Model {
    worker: Worker,
    pod: PodSandbox,
}

impl Model {
    /// Builds the instance without calling it.
    ///
    /// # Errors
    /// See [`Lifecycle`].
    pub async fn instantiate(&self, limit: Duration) -> Result<(), PluginError> {
        self.worker.call("instantiate", limit, |_, _| Box::pin(std::future::ready(Ok(())))).await
    }

    /// Returns the status of the cluster, if the plugin reports one.
    ///
    /// # Errors
    /// See [`Lifecycle`], for cancellation too.
    pub async fn probe(&self, view: &PostedView, limit: Duration) -> Result<Option<String>, PluginError> {
        let status = call!(self, "probe", limit, ochopod_pod_model.call_probe(lend view))?;
        Ok(status.map(|status| truncate(&status, MAX_TEXT_BYTES).to_owned()))
    }

    /// Does the work of the cluster.
    ///
    /// # Errors
    /// See [`Lifecycle`], for cancellation too.
    pub async fn reconcile(&self, view: &PostedView, limit: Duration) -> Result<(), PluginError> {
        call!(self, "reconcile", limit, ochopod_pod_model.call_reconcile(lend view))
    }
}

/// Converts the error of `initialize` or `configure`.
fn failed(failure: lifecycle::Failure) -> PluginError {
    match failure {
        lifecycle::Failure::NotYet(reason) => PluginError::NotYet(truncate(&reason, MAX_TEXT_BYTES).to_owned()),
        lifecycle::Failure::Fatal(text) => rejected(text),
    }
}

fn rejected(text: String) -> PluginError {
    PluginError::Rejected(if text.len() > MAX_TEXT_BYTES { truncate(&text, MAX_TEXT_BYTES).to_owned() } else { text })
}

/// Parses the JSON that a callback returned; empty text is an empty object.
fn parse_json(callback: &str, text: &str) -> Result<Value, PluginError> {
    if text.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    if text.len() > MAX_JSON_BYTES {
        return Err(rejected(format!("{callback} returned {} bytes, limit is {MAX_JSON_BYTES}", text.len())));
    }
    serde_json::from_str(text).map_err(|error| rejected(format!("{callback} returned invalid JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn callback_that_returns_invalid_json_fails() {
        assert_eq!(super::parse_json("signaled", "").unwrap(), json!({}));
        assert_eq!(super::parse_json("signaled", "[1]").unwrap(), json!([1]));
        for bad in ["{", "nonsense", &"[".repeat(10_000), &format!("\"{}\"", "x".repeat(MAX_JSON_BYTES))] {
            let error = super::parse_json("signaled", bad).unwrap_err();
            assert!(matches!(&error, PluginError::Rejected(text) if text.starts_with("signaled returned")), "{error}");
        }
    }

    #[test]
    fn long_error_text_is_truncated() {
        let error = rejected("é".repeat(MAX_TEXT_BYTES));
        assert!(error.to_string().len() <= MAX_TEXT_BYTES);
    }
}
