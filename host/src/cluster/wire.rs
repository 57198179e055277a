//! Names of the headers with which pods of ours tell each other more than the Python SDK does.

/// The leadership that asks: the transaction that created the leader's lock node.
pub const EPOCH: &str = "x-ochopod-epoch";
/// The configuration that a request belongs to.
pub const GENERATION: &str = "x-ochopod-generation";
/// Counts what a leadership posts: what it posts later has a higher number.
pub const NUMBER: &str = "x-ochopod-number";
/// In a 409: the identity of the pod that answers, which is not the one that was meant.
pub const KEY: &str = "x-ochopod-key";
