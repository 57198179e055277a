//! Containers of ECS tasks, by the answers of task metadata 4.

use crate::{
    Value,
    lookup::NetworkMode,
    values::{INSTANCE_METADATA, Inputs, Values, address},
};

/// Source of values of the task.
const TASK_METADATA: &str = "task metadata";

/// Returns the values of the task. In bridge networks, the address is the machine's, which maps ports.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    let Some(container) = inputs.found.container.as_ref() else {
        return Values { ip: inputs.own_address(), node: inputs.host_name(), ..Values::default() };
    };
    let (ip, ports) = match container.mode {
        NetworkMode::Awsvpc => (address(container.ip, TASK_METADATA), None),
        NetworkMode::Bridge => {
            let machine = inputs.found.instance.as_ref().and_then(|instance| instance.local);
            (address(machine, INSTANCE_METADATA), Some(container.ports.clone()))
        }
        NetworkMode::Host => (Value::default(), None),
    };
    let text = |text: &Option<String>| Value::new(text.as_deref().unwrap_or_default(), TASK_METADATA);
    Values {
        ip: ip.or_else(|| inputs.own_address()),
        node: inputs.host_name(),
        application: text(&container.application),
        task: text(&container.task),
        ports: ports.unwrap_or_default(),
        ..Values::default()
    }
}
