//! The plugin that a pod runs. A reload replaces it between two callbacks; the first calls of the new one decide whether it
//! stays.
//!
//! Each callback takes the plugin in force when it begins, and ends with it. A plugin that fails its [trial](super::trial) is
//! rolled back: the one before, whose instances still exist, is in force again, and the failed callback is repeated with it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ochopod_model::status::{MAX_REASON_BYTES, PluginIdentity, PluginReport, single_line};
use tokio::sync::watch;

use super::{
    Lifecycle, LifecycleSettings, Model, ModelSettings, Plugin, PluginError, PodSandbox, Wants,
    trial::{Trial, Verdict, is_fault},
};

/// Time limit for building an instance.
const INSTANTIATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of digits of a digest in the log and in `status`.
const SHORT_DIGEST: usize = 8;

/// Settings of a plugin, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSettings {
    /// Settings of its lifecycle.
    pub lifecycle: LifecycleSettings,
    /// Settings of its model.
    pub model: ModelSettings,
    /// Environment variables that it requests, and may set if programs are restricted.
    pub variables: Vec<String>,
}

/// A plugin with its instances for one pod.
#[derive(Debug)]
pub struct PodPlugin {
    plugin: Plugin,
    sandbox: PodSandbox,
    lifecycle: Lifecycle,
    model: Model,
    settings: Arc<PluginSettings>,
}

impl PodPlugin {
    /// Creates the plugin of one pod. The first calls build its instances.
    #[must_use]
    pub fn new(plugin: Plugin, pod: &PodSandbox, lifecycle: LifecycleSettings, model: ModelSettings) -> Self {
        let variables = plugin.description().wants.environment.clone();
        Self {
            lifecycle: plugin.lifecycle(pod),
            model: plugin.model(pod),
            sandbox: pod.clone(),
            settings: Arc::new(PluginSettings { lifecycle, model, variables }),
            plugin,
        }
    }

    /// Creates the same pod's plugin from another component, with its instances built.
    ///
    /// # Errors
    /// When an instance cannot be built.
    pub async fn successor(
        &self,
        plugin: Plugin,
        lifecycle: LifecycleSettings,
        model: ModelSettings,
    ) -> Result<Self, PluginError> {
        let sandbox = self.sandbox.with_wants(&plugin.description().wants);
        let new = Self::new(plugin, &sandbox, lifecycle, model);
        new.lifecycle.instantiate(INSTANTIATE_TIMEOUT).await?;
        new.model.instantiate(INSTANTIATE_TIMEOUT).await?;
        Ok(new)
    }

    /// Returns the plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Returns the sandbox of its instances.
    #[must_use]
    pub fn sandbox(&self) -> &PodSandbox {
        &self.sandbox
    }

    /// Returns its lifecycle.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Returns its model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns its settings.
    #[must_use]
    pub fn settings(&self) -> &Arc<PluginSettings> {
        &self.settings
    }

    fn short_digest(&self) -> &str {
        self.plugin.digest().get(..SHORT_DIGEST).unwrap_or_default()
    }
}

/// The plugin that a pod runs. Clones share it.
#[derive(Debug, Clone)]
pub struct PluginSlot(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<PodPlugin>>,
    identity: watch::Sender<PluginIdentity>,
    /// Wants of the plugin with which the pod was started: no other may exceed them.
    wants: Wants,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    /// Trial of the plugin in force, and the plugin that replaces it if it fails.
    trial: Option<(Trial, Arc<PodPlugin>)>,
    /// Settings of the plugin that computed the last command.
    launch: Arc<PluginSettings>,
}

impl PluginSlot {
    /// Creates the slot of a pod that starts with this plugin, from a file of this path.
    #[must_use]
    pub fn new(plugin: PodPlugin, path: &Path) -> Self {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let identity = PluginIdentity { name, version: None, digest: plugin.plugin.digest().to_owned() };
        let (wants, launch) = (plugin.plugin.description().wants.clone(), Arc::clone(&plugin.settings));
        Self(Arc::new(Shared {
            current: watch::Sender::new(Arc::new(plugin)),
            identity: watch::Sender::new(identity),
            wants,
            state: Mutex::new(SlotState { trial: None, launch }),
        }))
    }

    /// Returns the plugin in force.
    #[must_use]
    pub fn current(&self) -> Arc<PodPlugin> {
        Arc::clone(&self.0.current.borrow())
    }

    /// Returns a receiver of the plugin in force.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<PodPlugin>> {
        self.0.current.subscribe()
    }

    /// Returns a receiver of its name, version and digest.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<PluginIdentity> {
        self.0.identity.subscribe()
    }

    /// Returns the wants of the plugin with which the pod was started.
    #[must_use]
    pub fn first_wants(&self) -> &Wants {
        &self.0.wants
    }

    /// Returns the settings of the plugin that computed the last command: its process is started with them.
    #[must_use]
    pub fn launch(&self) -> Arc<PluginSettings> {
        Arc::clone(&self.state().launch)
    }

    /// Puts another plugin in force, on trial. If it fails, the last plugin that was not on trial is in force again.
    pub fn replace(&self, plugin: PodPlugin, now: Instant) {
        let mut state = self.state();
        let previous = match state.trial.take() {
            Some((_, proven)) => proven,
            None => self.current(),
        };
        state.trial = Some((Trial::new(now), previous));
        self.current().sandbox.report().send_modify(|report| *report = PluginReport::default());
        self.put(Arc::new(plugin));
    }

    /// Forgets that a plugin was rolled back.
    pub fn forget_rollback(&self) {
        self.current().sandbox.report().send_if_modified(|report| report.rolled_back.take().is_some());
    }

    /// Returns when the trial of the plugin in force ends, if it is on trial.
    #[must_use]
    pub fn trial_ends_at(&self) -> Option<Instant> {
        self.state().trial.as_ref().map(|(trial, _)| trial.ends_at())
    }

    /// Ends the trial if its time is over and no call is in progress that began in it.
    pub fn expire_trial(&self, now: Instant) {
        let mut state = self.state();
        let verdict = state.trial.as_ref().map(|(trial, _)| trial.expire(now));
        self.conclude(&mut state, verdict);
    }

    /// Begins a callback with the plugin in force.
    #[must_use]
    pub fn begin(&self, callback: &'static str) -> PluginCall {
        let mut state = self.state();
        if let Some((trial, _)) = &mut state.trial {
            trial.begin_call();
        }
        let on_trial = state.trial.is_some();
        PluginCall { slot: self.clone(), plugin: self.current(), callback, on_trial, is_over: false }
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, plugin: Arc<PodPlugin>) {
        self.0.identity.send_modify(|identity| plugin.plugin.digest().clone_into(&mut identity.digest));
        self.0.current.send_replace(plugin);
    }

    /// Applies the verdict of the trial in progress.
    fn conclude(&self, state: &mut SlotState, verdict: Option<Verdict>) {
        match verdict {
            None | Some(Verdict::Pending) => {}
            Some(Verdict::Passed) => {
                state.trial = None;
                tracing::info!(digest = self.current().short_digest(), "plugin passed its first calls");
            }
            Some(Verdict::Failed(reason)) => {
                let Some((_, previous)) = state.trial.take() else { return };
                let failed = self.current();
                let (digest, restored) = (failed.short_digest(), previous.short_digest());
                tracing::warn!(digest, restored, reason, "plugin rolled back");
                let text = format!("plugin {digest} rolled back: {}", single_line(&reason, MAX_REASON_BYTES));
                failed.sandbox.report().send_modify(|report| {
                    report.suspended.clear();
                    report.rolled_back = Some(text);
                });
                previous.sandbox.adopt_peers(&failed.sandbox);
                self.put(previous);
            }
        }
    }
}

/// A callback in progress, and the plugin that it runs with. Dropping it cancels the callback.
#[derive(Debug)]
pub struct PluginCall {
    slot: PluginSlot,
    plugin: Arc<PodPlugin>,
    callback: &'static str,
    /// Whether the plugin was on trial when the callback began.
    on_trial: bool,
    is_over: bool,
}

impl PluginCall {
    /// Returns the plugin to call.
    #[must_use]
    pub fn plugin(&self) -> &Arc<PodPlugin> {
        &self.plugin
    }

    /// Ends the callback with its result. Returns whether it has to be repeated: it failed, and its plugin is no longer in
    /// force. That one's failure says nothing about the pod.
    #[must_use]
    pub fn end(mut self, error: Option<&PluginError>) -> bool {
        self.is_over = true;
        let mut state = self.slot.state();
        if error.is_none() && self.callback == "configure" {
            state.launch = Arc::clone(&self.plugin.settings);
        }
        if self.on_trial && self.is_in_force() {
            let verdict = state.trial.as_mut().map(|(trial, _)| trial.end_call(self.callback, error, Instant::now()));
            self.slot.conclude(&mut state, verdict);
        }
        !self.is_in_force() && error.is_some_and(|error| is_fault(self.callback, error))
    }

    fn is_in_force(&self) -> bool {
        Arc::ptr_eq(&self.plugin, &self.slot.0.current.borrow())
    }
}

impl Drop for PluginCall {
    fn drop(&mut self) {
        if !self.is_over && self.on_trial && self.is_in_force() {
            let mut state = self.slot.state();
            let verdict = state.trial.as_mut().map(|(trial, _)| trial.cancel_call(Instant::now()));
            self.slot.conclude(&mut state, verdict);
        }
    }
}
