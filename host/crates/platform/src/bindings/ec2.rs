//! The EC2 instance below a platform: an addition to the values of any binding.

use crate::{
    Value,
    lookup::Instance,
    values::{HOST_NAME, INSTANCE_METADATA, Values, address},
};

/// Adds the public address, and the instance ID where the platform does not name the machine.
pub(crate) fn add(values: Values, instance: Option<&Instance>) -> Values {
    let Some(instance) = instance else { return values };
    let is_unnamed = values.node.is_empty() || values.node.source == HOST_NAME;
    let node = if is_unnamed { Value::new(&*instance.id, INSTANCE_METADATA) } else { values.node };
    let public = values.public.or_else(|| address(instance.public, INSTANCE_METADATA));
    Values { public, node, ..values }
}

/// Uses the addresses and the ID of the instance.
pub(crate) fn replace(values: Values, instance: Option<&Instance>) -> Values {
    let Some(instance) = instance else { return values };
    Values {
        ip: address(instance.local, INSTANCE_METADATA).or_else(|| values.ip),
        node: Value::new(&*instance.id, INSTANCE_METADATA),
        public: address(instance.public, INSTANCE_METADATA),
        ..values
    }
}
