//! Detection of the platform (Marathon, Kubernetes, Nomad, ECS, …) and of the system that a host runs on.
//!
//! Guarantees: everything is derived from the environment as a value ([`ochopod_environment::Env`]) and from the system
//! ([`SystemInfo`]), which is queried once. Detection never fails: what is unknown is empty or `None`. It sends no packets
//! other than name lookups.
//!
//! State: none. Must not know: flags and settings of the host, which take precedence over what is detected here; plugins,
//! the store and pods. A new platform is added here and nowhere else.
//!
//! | module | content |
//! |---|---|
//! | `platform` | [`Platform`]: addresses and names of a pod as the platform knows them |
//! | `kill_delay` | [`KillDelay`]: time between SIGTERM and SIGKILL |
//! | `system_info` | [`SystemInfo`]: host name, source address, user, PID 1 |
//! | `container` | memory limit of the container's control groups |

mod container;
mod kill_delay;
mod platform;
mod system_info;

pub use kill_delay::KillDelay;
pub use platform::Platform;
pub use system_info::{SystemInfo, hostname};
