//! The kit of the scenarios: real servers, real pods, and ways to observe them from outside.
//!
//! | | |
//! |---|---|
//! | [`TestEnv`] | environment of one test: a chroot of a ZooKeeper, its own addresses, a scratch directory |
//! | [`ZooKeeper`] | a real server: one shared by all tests of a binary, or a separate one for faults |
//! | [`Ensemble`] | three of them that need two |
//! | [`Etcd`] | a real server, with the v3 API and the v2 keys |
//! | [`ZkClient`] | reads that server, and writes to it as a foreign pod would |
//! | [`Consul`] | an agent: a fake that can fail, or a real one |
//! | [`CertificateAuthority`] | signs certificates, for servers and clients |
//! | [`Host`] | the real binary, as a process; its group is killed when it is dropped |
//! | [`Pod`] | one with a plugin and a control port |
//! | [`Pilot`] | one that runs a command |
//! | [`Client`] | client of a control port |
//! | [`FakePod`] | a fake peer: registers, answers with chosen codes, and records its requests |
//! | [`platforms`] | servers of platforms that answer as chosen: EC2 and ECS metadata, the Kubernetes API |
//! | [`Nginx`] | a real nginx, as the application of a pilot |
//! | [`Prometheus`] | a real Prometheus that scrapes one page |
//! | [`PythonPod`] | a pod as the Python SDK makes it: follows and leads |
//! | [`Proxy`] | a proxy of a server or a pod that injects faults at chosen messages |
//! | [`FakeLeader`] | holds a cluster's lock, so that a test acts as the leader |
//! | [`chaos`] | a seeded chaos run on an ensemble and its pods, with its invariants |
//! | [`Image`] | a container image of the binary, unpacked |
//! | [`namespaces`] | environments of pods: PID namespaces, other users, a read-only root |
//! | [`Latencies`] | latencies of requests |
//! | [`eventually`] | waits for a condition: only this module polls |
//!
//! Everything a test starts ends with it, in every case: servers through a guard process that detects the exit of the
//! test process, pods through the kernel's parent-death signal.

#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into, and a test may panic")]

pub mod artifacts;
pub mod chaos;
mod client;
pub mod consul;
mod ensemble;
mod etcd;
mod eventually;
mod fake_leader;
mod fake_pod;
mod guarded_server;
mod host;
mod image;
mod latency;
pub mod namespaces;
mod nginx;
mod pilot;
pub mod platforms;
mod pod;
mod port;
mod process;
mod prometheus;
pub mod proxy;
pub mod python;
pub mod redis;
mod terminal;
mod test_env;
mod tls;
mod zk_client;
mod zookeeper;

pub use client::{Client, Reply};
pub use consul::Consul;
pub use ensemble::Ensemble;
pub use etcd::{Etcd, EtcdClient, EtcdEntry};
pub use eventually::{DEFAULT_TIMEOUT, consistently, eventually};
pub use fake_leader::FakeLeader;
pub use fake_pod::{FakePod, RecordedRequest};
pub use host::{Host, ResourceUsage};
pub use image::Image;
pub use latency::Latencies;
pub use nginx::Nginx;
pub use pilot::{Pilot, PilotBuilder};
pub use pod::{Pod, PodBuilder};
pub use port::free_port;
pub use process::{Process, alive, zombies};
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use python::PythonPod;
pub use test_env::{ClusterNodes, TestEnv};
pub use tls::{CertificateAuthority, CertificateFiles};
pub use zk_client::{NodeLifetime, ZkClient};
pub use zookeeper::ZooKeeper;

/// Result of scenarios.
pub type Result<T = ()> = anyhow::Result<T>;
