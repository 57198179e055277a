//! What every program that is run for the application finds in its environment.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::config::Config;
use crate::settings::is_secret_variable;

/// What the variables begin with.
const PREFIX: &str = "CONTAINERPILOT";

/// The environment of children: the host's own without the host's secrets, and
///
/// | variable | what it holds |
/// |---|---|
/// | `CONTAINERPILOT_<SERVICE>_IP` | the address of a service, the telemetry's too; `-` in the name is `_` |
/// | `CONTAINERPILOT_PID` | the host's process id |
/// | `CONTAINERPILOT_<NAME>_PID` | the process id of what ran last under that name: `APP`, `PRESTART`, `PRESTOP`, `POSTSTOP`, `COPROCESS[NAME]` |
///
/// Clones share it.
#[derive(Clone)]
pub struct Environment(Arc<Mutex<Variables>>);

struct Variables {
    /// What stays, and process ids.
    lasting: BTreeMap<OsString, OsString>,
    /// Addresses of the services of the present configuration.
    addresses: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment on top of these variables of the host.
    pub fn new(host: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let public = host.into_iter().filter(|(name, _)| !is_secret_variable(&name.to_string_lossy()));
        let mut lasting: BTreeMap<OsString, OsString> = public.collect();
        lasting.insert(format!("{PREFIX}_PID").into(), std::process::id().to_string().into());
        Self(Arc::new(Mutex::new(Variables { lasting, addresses: BTreeMap::new() })))
    }

    /// Tells the addresses of the services of this configuration, and no others.
    pub fn advertise(&self, config: &Config) {
        let variable = |name: &str| format!("{PREFIX}_{}_IP", name.to_uppercase().replace('-', "_"));
        let services = config.registered().into_iter();
        let addresses = services.map(|service| (variable(&service.name).into(), service.address.to_string().into()));
        self.lock().addresses = addresses.collect();
    }

    /// Tells the process id of what was started under this name, whatever its case. It stays told when that has ended. No
    /// variable can have a name with `=` in it: such are not told.
    pub fn started(&self, name: &str, pid: u32) {
        if name.contains(['=', '\0']) {
            return;
        }
        let variable = format!("{PREFIX}_{}_PID", name.to_uppercase());
        self.lock().lasting.insert(variable.into(), pid.to_string().into());
    }

    /// The variables as they are now.
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
