//! Replaces the plugin of a pod: loads the new one, compares it with the last one, and puts it in force.

use std::{
    error::Error as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_control::{PostedComponent, ReloadError, ReloadRequest, Tools};
use ochopod_lifecycle::Failure;
use ochopod_model::{
    reply::ReloadReply,
    status::{Blame, LifecycleReport, ProcessState},
};
use ochopod_plugin::{
    Grants, LifecycleSettings, LoadError, ModelSettings, PluginSettings, PluginSlot, PodPlugin, Wants,
};
use ochopod_timing::sleep_until;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::host_context::PluginLoader;

/// Delay before the end of a trial is awaited again, if a call is in progress then.
const TRIAL_RECHECK: Duration = Duration::from_secs(1);

/// Replaces the plugin of one pod.
pub(super) struct ReloadActor {
    pub(super) loader: PluginLoader,
    pub(super) slot: PluginSlot,
    /// Names of the tools, which follow the plugin.
    pub(super) tools: Tools,
    pub(super) lifecycle: watch::Receiver<LifecycleReport>,
    pub(super) shutdown: CancellationToken,
}

impl ReloadActor {
    /// Runs until it is dropped.
    ///
    /// # Cancellation safety
    /// Dropping the future leaves the plugin that is in force.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<ReloadRequest>) {
        let actor = Arc::new(self);
        let mut current = actor.slot.watch();
        let mut reloads = JoinSet::new();
        loop {
            let recheck = Instant::now() + TRIAL_RECHECK;
            let trial_ends = actor.slot.trial_ends_at();
            let trial_ends = trial_ends.map(|end| if end <= Instant::now() { recheck } else { end });
            tokio::select! {
                // There is at most one at a time.
                Some(request) = requests.recv() => {
                    reloads.spawn(Arc::clone(&actor).handle(request).in_current_span());
                }
                Some(_) = reloads.join_next() => {}
                Ok(()) = current.changed() => {
                    let plugin = Arc::clone(&current.borrow_and_update());
                    let tools = plugin.plugin().description().tools.iter();
                    actor.tools.set_names(tools.map(|tool| tool.name.clone()).collect());
                }
                () = sleep_until(trial_ends) => actor.slot.expire_trial(Instant::now()),
            }
        }
    }

    async fn handle(self: Arc<Self>, request: ReloadRequest) {
        let posted = request.component.as_ref().map(PostedComponent::path);
        let result = self.reload(posted.as_deref()).await;
        if let Err(ReloadError::Rejected(failure) | ReloadError::Failed(failure)) = &result {
            tracing::warn!(reason = failure.message, "plugin not replaced");
        }
        request.finish(result);
    }

    /// Loads the component that a client posted, or the plugin's file, and puts it in force.
    async fn reload(&self, posted: Option<&Path>) -> Result<ReloadReply, ReloadError> {
        let loaded = match posted {
            Some(path) => self.loader.load_component(path).await,
            None => self.loader.load().await,
        };
        let plugin = loaded.map_err(|error| load_failure(&error, posted))?;
        let current = self.slot.current();
        let (digest, previous) = (plugin.digest().to_owned(), current.plugin().digest().to_owned());
        if digest == previous {
            self.slot.forget_rollback();
            return Ok(ReloadReply { changed: false, digest, previous, settings_changed: Vec::new() });
        }
        let (lifecycle, model) = self.loader.settings(&plugin);
        model.validate().map_err(|reason| {
            rejected(Blame::Plugin, format!("settings of the plugin with those of --set: {reason}"))
        })?;
        let wants = (self.slot.first_wants(), &plugin.description().wants);
        let settings_changed = compare(current.settings(), (&lifecycle, &model), wants, &self.loader.grants)
            .map_err(|reason| rejected(Blame::Plugin, reason))?;
        let ready = Instant::now();
        let new = current
            .successor(plugin, lifecycle, model)
            .await
            .map_err(|error| rejected(error.blame(), format!("plugin cannot be instantiated: {error}")))?;
        self.put(new)?;
        tracing::info!(digest, previous, took = ?ready.elapsed(), ?settings_changed, "plugin replaced");
        Ok(ReloadReply { changed: true, digest, previous, settings_changed })
    }

    fn put(&self, new: PodPlugin) -> Result<(), ReloadError> {
        if self.shutdown.is_cancelled() {
            return Err(ReloadError::Gone("pod is shutting down"));
        }
        if self.lifecycle.borrow().process == ProcessState::Dead {
            return Err(ReloadError::Gone("pod is dead"));
        }
        self.slot.replace(new, Instant::now());
        Ok(())
    }
}

/// Compares a plugin with the one in force. Returns the names of the settings that differ, those of the lifecycle first.
///
/// # Errors
/// The reason if it cannot replace the other one while the pod runs: other dependencies, or wants that exceed those of the
/// plugin with which the pod was started.
fn compare(
    old: &PluginSettings,
    (lifecycle, model): (&LifecycleSettings, &ModelSettings),
    (first, wants): (&Wants, &Wants),
    grants: &Grants,
) -> Result<Vec<String>, String> {
    let exceeding = wants.exceeding(first, grants);
    if !exceeding.is_empty() {
        let list = exceeding.join(", ");
        return Err(format!(
            "plugin requests permissions that the pod was started without: {list}; restart the pod with them"
        ));
    }
    if model.depends_on != old.model.depends_on {
        let [before, after] = [&old.model.depends_on, &model.depends_on]
            .map(|names| if names.is_empty() { "none".to_owned() } else { names.join(",") });
        return Err(format!("plugin changes depends_on from {before} to {after}: restart the pod"));
    }
    let mut names = lifecycle.differences(&old.lifecycle);
    let model = model.differences(&old.model).into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>();
    names.extend(model);
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Returns the rejection for a plugin that cannot be loaded. The file of a posted component has a meaningless name.
fn load_failure(error: &LoadError, posted: Option<&Path>) -> ReloadError {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    if let Some(path) = posted {
        message = message.replace(&path.display().to_string(), "in the body");
    }
    match error {
        LoadError::Sandbox { .. } | LoadError::Store { .. } => ReloadError::Failed(failure(Blame::Host, message)),
        _ => rejected(Blame::Plugin, message),
    }
}

fn rejected(blame: Blame, message: String) -> ReloadError {
    ReloadError::Rejected(failure(blame, message))
}

fn failure(blame: Blame, message: String) -> Failure {
    Failure { callback: None, blame, message }
}

#[cfg(test)]
mod tests {
    use ochopod_plugin::{Batch, OnChange};

    use super::*;

    fn settings() -> PluginSettings {
        let minute = Duration::from_mins(1);
        PluginSettings {
            lifecycle: LifecycleSettings {
                check_every: minute,
                checks: 1,
                cwd: None,
                grace: minute,
                pipe_subprocess: false,
                shell: false,
                soft: false,
                strict: false,
                on_change: OnChange::Restart,
                ready_within: minute,
            },
            model: ModelSettings {
                batch: Batch::All,
                damper: Duration::ZERO,
                depends_on: vec!["db".to_owned()],
                full_shutdown: false,
                grace: minute,
                probe_every: minute,
                sequential: false,
                tolerate: 0,
            },
            variables: Vec::new(),
        }
    }

    fn against_old(change: impl FnOnce(&mut PluginSettings, &mut Wants)) -> Result<Vec<String>, String> {
        let old = settings();
        let first = Wants { network: vec!["peers".to_owned()], ..Wants::default() };
        let (mut new, mut wants) = (old.clone(), first.clone());
        change(&mut new, &mut wants);
        let grants = Grants { programs: vec!["date".to_owned()], ..Grants::default() };
        compare(&old, (&new.lifecycle, &new.model), (&first, &wants), &grants)
    }

    #[test]
    fn changed_settings_are_named_once() {
        assert_eq!(against_old(|_, _| {}), Ok(Vec::new()));
        let changed = against_old(|new, _| {
            new.lifecycle.checks = 3;
            (new.lifecycle.grace, new.model.grace) = (Duration::ZERO, Duration::ZERO);
            new.model.sequential = true;
        });
        assert_eq!(changed.unwrap(), ["checks", "grace", "sequential"]);
    }

    #[test]
    fn other_dependencies_are_rejected() {
        let changed = against_old(|new, _| new.model.depends_on.clear());
        assert_eq!(changed.unwrap_err(), "plugin changes depends_on from db to none: restart the pod");
    }

    #[test]
    fn permissions_beyond_those_of_the_start_are_rejected_by_name() {
        let granted = against_old(|_, wants| wants.programs.push("date".to_owned()));
        assert_eq!(granted, Ok(Vec::new()), "the operator granted it");
        let error = against_old(|_, wants| {
            wants.programs.push("nc".to_owned());
            wants.network.push("loopback:6379".to_owned());
        });
        let error = error.unwrap_err();
        assert!(error.contains("--run nc, loopback:6379;"), "{error}");
    }

    #[test]
    fn path_of_a_posted_component_is_not_shown() {
        let path = Path::new("/tmp/.tmpX/plugin.wasm");
        let error = LoadError::Truncated { path: path.to_owned() };
        let ReloadError::Rejected(failure) = load_failure(&error, Some(path)) else { panic!("{error}") };
        assert_eq!(failure.message, "plugin in the body is truncated: it ends within a section");
    }
}
