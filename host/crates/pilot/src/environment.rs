//! Environment of all programs that are run for the application.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ochopod_environment::public_environment;

use super::config::Config;

/// Prefix of the variables.
const PREFIX: &str = "CONTAINERPILOT";

/// Environment of children: that of the host without any secrets, and
///
/// | variable | value |
/// |---|---|
/// | `CONTAINERPILOT_<SERVICE>_IP` | the address of a service, the telemetry's too; `-` in the name is `_` |
/// | `CONTAINERPILOT_PID` | the host's process id |
/// | `CONTAINERPILOT_<NAME>_PID` | the process id of the last program of that name: `APP`, `PRESTART`, `PRESTOP`, `POSTSTOP`, `COPROCESS[NAME]` |
///
/// Clones share their state.
#[derive(Clone)]
pub struct Environment(Arc<Mutex<Variables>>);

struct Variables {
    /// Permanent variables and process ids.
    lasting: BTreeMap<OsString, OsString>,
    /// Addresses of the services of the current configuration.
    addresses: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Creates an environment from the variables of the host.
    pub fn new(host: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut lasting = public_environment(host);
        lasting.insert(format!("{PREFIX}_PID").into(), std::process::id().to_string().into());
        Self(Arc::new(Mutex::new(Variables { lasting, addresses: BTreeMap::new() })))
    }

    /// Sets the addresses to those of the services of this configuration.
    pub fn set_services(&self, config: &Config) {
        let variable = |name: &str| format!("{PREFIX}_{}_IP", name.to_uppercase().replace('-', "_"));
        let services = config.registered_services().into_iter();
        let addresses = services.map(|service| (variable(&service.name).into(), service.address.to_string().into()));
        self.lock().addresses = addresses.collect();
    }

    /// Sets the process id of a program of this name, in upper case. It stays after the exit. Names that contain `=` are skipped:
    /// no variable can have them.
    pub fn set_pid(&self, name: &str, pid: u32) {
        if name.contains(['=', '\0']) {
            return;
        }
        let variable = format!("{PREFIX}_{}_PID", name.to_uppercase());
        self.lock().lasting.insert(variable.into(), pid.to_string().into());
    }

    /// Returns the current variables.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<OsString, OsString> {
        let variables = self.lock();
        let all = variables.lasting.iter().chain(&variables.addresses);
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Variables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
