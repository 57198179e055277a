//! Tasks of Nomad. Each port of the group has a label; variables have its address on the machine.

use std::collections::BTreeMap;

use ochopod_model::port;

use crate::{
    Value,
    values::{Inputs, Values},
};

/// Prefix of the variables with the port that the task binds.
const PORT: &str = "NOMAD_PORT_";

/// Returns the address and the ports on the machine. The name of the machine is in no variable.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    Values {
        ip: machine_address(inputs).or_else(|| inputs.own_address()),
        node: inputs.host_name(),
        application: inputs
            .variable("NOMAD_JOB_PARENT_ID")
            .or_else(|| inputs.variable("NOMAD_JOB_ID"))
            .or_else(|| inputs.variable("NOMAD_JOB_NAME")),
        task: inputs.variable("NOMAD_ALLOC_ID"),
        ports: labels(inputs)
            .filter_map(|(label, inner)| {
                let outer = inputs.env.text(&format!("NOMAD_HOST_PORT_{label}")).and_then(port)?;
                Some((inner, outer))
            })
            .collect::<BTreeMap<_, _>>(),
        ..Values::default()
    }
}

/// Returns the address of the control port on the machine; without a label for it, that of any label.
fn machine_address(inputs: Inputs<'_>) -> Value {
    let of = |label: &str| {
        let newer = inputs.variable(format!("NOMAD_HOST_IP_{label}"));
        newer.or_else(|| inputs.variable(format!("NOMAD_IP_{label}")))
    };
    let mut control = labels(inputs).filter(|(_, inner)| *inner == inputs.port).map(|(label, _)| of(label));
    let mut all = labels(inputs).map(|(label, _)| of(label));
    control.find(|value| !value.is_empty()).or_else(|| all.find(|value| !value.is_empty())).unwrap_or_default()
}

/// Returns the labels of the ports of this task, with the port that it binds.
fn labels(inputs: Inputs<'_>) -> impl Iterator<Item = (&str, u16)> {
    inputs.env.iter().filter_map(|(name, value)| {
        let label = name.to_str()?.strip_prefix(PORT)?;
        Some((label, port(value.to_str()?)?))
    })
}
