//! Servers of platforms that answer as chosen: EC2 and ECS metadata, the Kubernetes API.

mod kubernetes;
mod metadata;
mod scripted_server;

pub use kubernetes::{ServiceAccount, kubernetes_api};
pub use metadata::{INSTANCE_ID, instance_metadata, task_metadata};
pub use scripted_server::{Behaviour, RecordedCall, ScriptedServer};
