//! The kit of the scenarios: real servers, real pods, and ways to look at them from outside.
//!
//! | | |
//! |---|---|
//! | [`Site`] | one test's corner: a chroot of a ZooKeeper, addresses of its own, a scratch directory |
//! | [`ZooKeeper`] | a real server: one shared by all tests of a binary, or an own one to be faulted |
//! | [`Ensemble`] | three of them that need two |
//! | [`Etcd`] | a real server, with the v3 API and the v2 keys |
//! | [`Store`] | looks into that server, and writes into it as a foreign pod would |
//! | [`Consul`] | an agent: a stand-in that can be told to fail, or a real one |
//! | [`Authority`] | signs certificates, for servers and clients |
//! | [`Host`] | the real binary, as a process; its group is killed when it is dropped |
//! | [`Pod`] | one with a plugin and a control port |
//! | [`Pilot`] | one that accompanies a command |
//! | [`Client`] | speaks to a control port |
//! | [`StandIn`] | a peer made of the kit: registers, answers as told, and remembers what it was asked |
//! | [`Nginx`] | a real nginx, as the application of a pilot |
//! | [`Prometheus`] | a real Prometheus that scrapes one page |
//! | [`PythonPod`] | a pod as the Python SDK makes it: follows and leads |
//! | [`Proxy`] | stands before a server or a pod, and faults the way there at chosen messages |
//! | [`Lead`] | holds a cluster's lock, so that a test plays the leader |
//! | [`chaos`] | a seeded storm of faults over an ensemble and its pods, and what has to hold in it |
//! | [`namespaces`] | what a pod can be started within: PID namespaces, other users, a read-only root |
//! | [`Latencies`] | how long answers take |
//! | [`eventually`] | waits for a condition: the only place that polls |
//!
//! Everything a test starts ends with it, however it ends: servers through a guarding shell that notices that the test
//! process is gone, pods through the kernel's parent-death signal.

#![allow(clippy::indexing_slicing, reason = "indexing is how JSON is looked into, and a test may panic")]

pub mod artifacts;
pub mod chaos;
mod client;
pub mod consul;
mod ensemble;
mod etcd;
mod eventually;
mod guard;
mod host;
mod latency;
mod lead;
pub mod namespaces;
mod nginx;
mod pilot;
mod pod;
mod port;
mod process;
mod prometheus;
pub mod proxy;
pub mod python;
pub mod redis;
mod site;
mod standin;
mod store;
mod tls;
mod zookeeper;

pub use client::{Client, Reply};
pub use consul::Consul;
pub use ensemble::Ensemble;
pub use etcd::Etcd;
pub use eventually::{SOON, eventually, steadily};
pub use host::{Holdings, Host};
pub use latency::Latencies;
pub use lead::Lead;
pub use nginx::Nginx;
pub use pilot::{Pilot, PilotBuilder};
pub use pod::{Pod, PodBuilder};
pub use port::free_port;
pub use process::{Process, alive, zombies};
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use python::PythonPod;
pub use site::{Cluster, Site};
pub use standin::{Asked, StandIn};
pub use store::{Kept, Store};
pub use tls::{Authority, Certified};
pub use zookeeper::ZooKeeper;

/// What scenarios return.
pub type Result<T = ()> = anyhow::Result<T>;
