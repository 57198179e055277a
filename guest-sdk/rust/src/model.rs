use crate::{Cluster, ModelSettings, Result};

/// Cluster-wide behaviour: settings, probe and reconciliation. The leader's plugin is authoritative.
pub trait Model: Default + 'static {
    /// Returns the settings. Called once when the plugin is loaded. Must be pure: the result must not depend on the
    /// clock, files or the environment.
    #[must_use]
    fn settings() -> ModelSettings {
        ModelSettings::default()
    }

    /// Returns the status of the cluster. Called on the leader only, with the live pods, every
    /// [`ModelSettings::probe_every`] while the cluster is configured. The text becomes the cluster's `status`; none
    /// clears it. A probe may be stopped at any time.
    ///
    /// # Errors
    /// An error is shown as `* <error>`.
    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let _ = cluster;
        Ok(None)
    }

    /// Does work that is done once per cluster, such as adding members. Called on the leader only, with the live pods and
    /// their roles, after each configuration and when the role or readiness of a pod, or the role of a pod of a
    /// dependency, has changed. Must be idempotent: it may be called again for the same view, also by another leader.
    ///
    /// # Errors
    /// An error is shown in `status`, and the call is retried.
    fn reconcile(&mut self, cluster: &Cluster) -> Result<()> {
        let _ = cluster;
        Ok(())
    }
}

/// Model of a plugin that declares none: default settings, no probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reactive;

impl Model for Reactive {}
