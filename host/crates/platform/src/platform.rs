//! The platform that a pod runs on, and the values it provides.

use crate::{
    Binding, KillDelay,
    bindings::{docker, ec2, ecs, kubernetes, local, marathon, nomad},
    values::{Inputs, Values},
};

/// Platform of a pod: its binding, and values as the platform knows them. Settings of the operator take precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Name of the platform, registered as `binding`.
    pub binding: Binding,
    /// Addresses, names and ports.
    pub values: Values,
    /// Application ID of Marathon, from which the name of the cluster follows; empty elsewhere.
    pub marathon_app: String,
    /// Prefix of the variables `PORT_<n>` and `HOST`.
    pub prefix: String,
    /// Time between SIGTERM and SIGKILL, if it is known.
    pub kill_delay: Option<KillDelay>,
}

impl Platform {
    /// Derives the values of a binding. What is unknown is empty.
    #[must_use]
    pub fn derive(binding: Binding, inputs: Inputs<'_>) -> Self {
        let values = match binding {
            Binding::Local => local::values(inputs),
            Binding::Marathon => ec2::add(marathon::values(inputs), inputs.found.instance.as_ref()),
            Binding::MarathonEc2 => ec2::replace(marathon::values(inputs), inputs.found.instance.as_ref()),
            Binding::Kubernetes => ec2::add(kubernetes::values(inputs), inputs.found.instance.as_ref()),
            Binding::Nomad => ec2::add(nomad::values(inputs), inputs.found.instance.as_ref()),
            Binding::Ecs => ec2::add(ecs::values(inputs), inputs.found.instance.as_ref()),
            Binding::Docker | Binding::Generic => ec2::add(docker::values(inputs), inputs.found.instance.as_ref()),
        };
        let is_marathon = binding.is_marathon() || binding == Binding::Local;
        let marathon_app = if is_marathon { marathon::application(inputs).text } else { String::new() };
        let kill_delay = KillDelay::detect(inputs.env, inputs.found.pod.as_ref().and_then(|pod| pod.grace));
        Self { binding, values, marathon_app, prefix: inputs.prefix.to_owned(), kill_delay }
    }
}
