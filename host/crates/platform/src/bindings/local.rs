//! Local mode: everything runs on this machine.

use super::marathon;
use crate::{
    Value,
    values::{Inputs, Values},
};

const LOCAL: &str = "local mode";

/// Returns loopback addresses. Identifiers of Marathon are kept.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    let loopback = Value::new("127.0.0.1", LOCAL);
    Values {
        ip: loopback.clone(),
        public: loopback,
        node: Value::new("local", LOCAL),
        application: marathon::application(inputs),
        task: inputs.variable("MESOS_TASK_ID"),
        ..Values::default()
    }
}
