use crate::{Cluster, ModelSettings, Result};

/// How the pods of one cluster work together. The leader's plugin counts.
pub trait Model: Default + 'static {
    /// Asked once when the plugin is loaded. Pure: it may not depend on the clock, files or the environment.
    #[must_use]
    fn settings() -> ModelSettings {
        ModelSettings::default()
    }

    /// Called on the leader only, every [`ModelSettings::probe_every`] while the cluster is configured, with the live
    /// pods. Its text becomes the cluster's `status`; none clears it. It may be stopped at any moment.
    ///
    /// # Errors
    /// An error shows as `* <error>`.
    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let _ = cluster;
        Ok(None)
    }
}

/// The model of a plugin that names none: default settings, no probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reactive;

impl Model for Reactive {}
