//! Stand-in for the pilot services, in a build without them.

use ochopod_environment::Env;
use ochopod_init::{HostExit, SignalNumber};
use ochopod_store::ZooKeeperAddress;
use tokio::sync::mpsc;

use super::{error::StartError, host_context::HostContext, shutdown::Shutdown};
use crate::settings::Settings;

/// No configuration can be loaded.
pub(super) enum PilotServices {}

impl PilotServices {
    /// Returns the error that this build has no pilot services.
    #[allow(clippy::unused_async, reason = "the signature of the real one")]
    pub(super) async fn load(_config: &str, _env: &Env, _zk: &ZooKeeperAddress) -> Result<Self, StartError> {
        Err(StartError::NoPilot)
    }

    /// Exists for the compiler alone: the type has no values.
    #[allow(clippy::unused_async, reason = "the signature of the real one")]
    pub(super) async fn run_pod(
        self,
        _host: &HostContext,
        _settings: Settings,
        _signals: mpsc::Receiver<SignalNumber>,
        _stop: &Shutdown,
    ) -> Result<HostExit, StartError> {
        match self {}
    }
}
