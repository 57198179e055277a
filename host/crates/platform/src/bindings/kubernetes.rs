//! Containers of Kubernetes pods: variables of the downward API first, then the API server's answers.

use crate::{
    Value,
    values::{Inputs, Values, address},
};

/// Source of values of the API server.
const API: &str = "Kubernetes API";

/// Returns the values of the pod. Ports are not mapped.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    let pod = inputs.found.pod.as_ref();
    let api = |text: Option<&str>| Value::new(text.unwrap_or_default(), API);
    let first_ip = || {
        let all = inputs.variable("POD_IPS");
        Value::new(all.text.split(',').next().unwrap_or_default().trim(), all.source)
    };
    Values {
        ip: inputs
            .variable("POD_IP")
            .or_else(first_ip)
            .or_else(|| address(pod.and_then(|pod| pod.ip), API))
            .or_else(|| inputs.own_address()),
        public: address(inputs.found.node_address, API).or_else(|| inputs.variable("HOST_IP")),
        node: inputs
            .variable("NODE_NAME")
            .or_else(|| api(pod.and_then(|pod| pod.node.as_deref())))
            .or_else(|| inputs.host_name()),
        application: api(inputs.found.owner.as_deref()),
        task: inputs
            .variable("POD_NAME")
            .or_else(|| api(pod.map(|pod| pod.name.as_str())))
            .or_else(|| inputs.variable("HOSTNAME"))
            .or_else(|| inputs.host_name()),
        ..Values::default()
    }
}
