//! Containers without an orchestrator, and any machine.

use crate::values::{Inputs, Values};

/// Returns the address of this container and the host name. Published ports and the machine of a container are invisible inside.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    Values { ip: inputs.own_address(), node: inputs.host_name(), ..Values::default() }
}
