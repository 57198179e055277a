//! Values of a platform, each with its source.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use ochopod_environment::Env;

use crate::{SystemInfo, lookup::LookUpResults};

/// Source of values of the EC2 instance.
pub(crate) const INSTANCE_METADATA: &str = "instance metadata";
/// Source of the address of this pod.
const OWN_ADDRESS: &str = "address of this host";
/// Source of the name of this machine or container.
pub(crate) const HOST_NAME: &str = "host name";

/// A text and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value {
    /// The text; empty if the value is unknown.
    pub text: String,
    /// A variable, a setting or a look-up; empty if the value is unknown.
    pub source: Cow<'static, str>,
}

impl Value {
    /// Creates a value. Without a text it has no source.
    pub fn new(text: impl Into<String>, source: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::default() } else { Self { text, source: source.into() } }
    }

    /// Returns whether the value is unknown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns this value, or else another one.
    pub(crate) fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.is_empty() { other() } else { self }
    }
}

/// Values of a pod as its platform knows them. Settings of the operator take precedence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// Address that other pods connect to.
    pub ip: Value,
    /// Address reachable from outside.
    pub public: Value,
    /// Underlying machine.
    pub node: Value,
    /// Application ID.
    pub application: Value,
    /// Task ID of the pod.
    pub task: Value,
    /// Ports of the container and those that they are mapped to, in addition to `PORT_<n>`.
    pub ports: BTreeMap<u16, u16>,
}

/// Everything that the values of a platform are derived from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Variables.
    pub env: &'a Env,
    /// System.
    pub system: &'a SystemInfo,
    /// Results of look-ups.
    pub found: &'a LookUpResults,
    /// Prefix of `PORT_<n>` and `HOST` on Marathon.
    pub prefix: &'a str,
    /// Control port in the container.
    pub port: u16,
}

impl Inputs<'_> {
    /// Returns the value of a variable.
    pub(crate) fn variable(&self, name: impl Into<String>) -> Value {
        let name = name.into();
        let text = self.env.text(&name).unwrap_or_default().to_owned();
        Value::new(text, name)
    }

    /// Returns the source address of packets to the store.
    pub(crate) fn own_address(&self) -> Value {
        Value::new(self.system.address.to_string(), OWN_ADDRESS)
    }

    /// Returns the name of this machine or container.
    pub(crate) fn host_name(&self) -> Value {
        Value::new(&*self.system.hostname, HOST_NAME)
    }
}

/// Returns a known address as a value.
pub(crate) fn address(ip: Option<IpAddr>, source: &'static str) -> Value {
    ip.map(|ip| Value::new(ip.to_string(), source)).unwrap_or_default()
}
