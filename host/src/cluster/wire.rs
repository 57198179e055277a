//! Names of the headers with which pods of ours tell each other more than the Python SDK does.

/// The leadership that asks: the transaction that created the leader's lock node.
pub const EPOCH: &str = "x-ochopod-epoch";
/// The configuration that a request belongs to.
pub const GENERATION: &str = "x-ochopod-generation";
/// Where the request stands among those of its leadership, a number that grows: one that was overtaken is not obeyed.
pub const ORDER: &str = "x-ochopod-order";
/// In a 409: the identity of the pod that answers, which is not the one that was meant.
pub const KEY: &str = "x-ochopod-key";
