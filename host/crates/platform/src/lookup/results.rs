//! Results of look-ups.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::LookUpError;
use crate::Value;

/// Results of all look-ups. What was not looked up, or failed, is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LookUpResults {
    /// The EC2 instance.
    pub instance: Option<Instance>,
    /// The container of an ECS task.
    pub container: Option<EcsContainer>,
    /// The Kubernetes pod.
    pub pod: Option<KubernetesPod>,
    /// Owner of that pod: `deployment/web`, `statefulset/kafka`.
    pub owner: Option<String>,
    /// External address of its node.
    pub node_address: Option<IpAddr>,
    /// Address of `ZooKeeper`.
    pub store: Option<Value>,
    /// Look-ups that failed.
    pub problems: Vec<LookUpError>,
}

/// An EC2 instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its ID, `i-` and hexadecimal digits.
    pub id: String,
    /// Its primary address.
    pub local: Option<IpAddr>,
    /// Its public address, if it has one.
    pub public: Option<IpAddr>,
}

/// Network of the container of an ECS task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// The task has an address of its own.
    Awsvpc,
    /// The machine maps ports to the container.
    Bridge,
    /// The container has the network of the machine.
    Host,
}

/// The container of an ECS task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcsContainer {
    /// Network.
    pub mode: NetworkMode,
    /// Address of the container.
    pub ip: Option<IpAddr>,
    /// Ports of the container, and those of the machine that are mapped to them.
    pub ports: BTreeMap<u16, u16>,
    /// Service, else the family of the task definition.
    pub application: Option<String>,
    /// ID of the task.
    pub task: Option<String>,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesPod {
    /// Name.
    pub name: String,
    /// Name of its node.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Option<Duration>,
}
