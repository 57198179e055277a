//! Objects of the Kubernetes API, with the fields that are read.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

/// An object, with the parts of its specification and status that are read.
#[derive(Deserialize)]
pub(super) struct Object<S = (), T = ()> {
    pub(super) metadata: Metadata,
    #[serde(default = "Option::default")]
    pub(super) spec: Option<S>,
    #[serde(default = "Option::default")]
    pub(super) status: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Deserialize)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) controller: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    pub(super) termination_grace_period_seconds: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct PodStatus {
    #[serde(rename = "podIP")]
    pub(super) ip: Option<IpAddr>,
}

/// Content that is not read.
#[derive(Deserialize)]
pub(super) struct Ignored {}

#[derive(Deserialize)]
pub(super) struct NodeStatus {
    #[serde(default)]
    pub(super) addresses: Vec<NodeAddress>,
}

#[derive(Deserialize)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}

pub(super) type Pod = Object<PodSpec, PodStatus>;

/// Returns the owner that manages an object.
pub(super) fn controller(object: &Metadata) -> Option<OwnerReference> {
    let is_valid = |owner: &&OwnerReference| {
        owner.controller && is_name(&owner.name) && owner.kind.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    object.owner_references.iter().find(is_valid).cloned()
}

pub(super) fn display(owner: &OwnerReference) -> String {
    format!("{}/{}", owner.kind.to_ascii_lowercase(), owner.name)
}

/// Returns whether a text is the name of an object: it becomes part of a path.
pub(super) fn is_name(text: &str) -> bool {
    let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(of_name) && !text.starts_with('.')
}
