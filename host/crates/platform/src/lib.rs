//! Detection of the platform (Marathon, Kubernetes, Nomad, ECS, …) and of the system that a host runs on.
//!
//! Guarantees: values are derived by pure functions from the environment as a value ([`ochopod_environment::Env`]), from
//! the system ([`SystemInfo`]), which is queried once, and from the results of look-ups ([`LookUpResults`]). Each value
//! names its source. Detection never fails: what is unknown is empty or `None`. Look-ups are planned by a pure function,
//! which plans none where nothing suggests a platform, and end within [`TOTAL_TIMEOUT`].
//!
//! State: none. Must not know: flags and settings of the host, which take precedence over what is detected here; plugins,
//! the store and pods. A new platform is a module in `bindings`, and nothing else.
//!
//! | module | content |
//! |---|---|
//! | `binding` | [`Binding`]: names of the platforms, and their detection by variables |
//! | `platform` | [`Platform`]: the values of a binding |
//! | `bindings` | one pure function for each platform |
//! | `values` | [`Value`]: a text with its source |
//! | `lookup` | [`LookUps`]: EC2 and ECS metadata, Kubernetes API, files of Mesos |
//! | `kill_delay` | [`KillDelay`]: time between SIGTERM and SIGKILL |
//! | `system_info` | [`SystemInfo`]: host name, addresses, user, PID 1 |
//! | `container` | memory limit of the container's control groups |

mod binding;
mod bindings;
mod container;
mod kill_delay;
mod lookup;
mod platform;
mod system_info;
mod values;

pub use binding::{Binding, is_container};
pub use kill_delay::KillDelay;
pub use lookup::{
    EcsContainer, Instance, InstanceMetadata, KubernetesPod, LookUpError, LookUpResults, LookUps, NetworkMode,
    OperatorSettings, TOTAL_TIMEOUT,
};
pub use platform::Platform;
pub use system_info::{SystemInfo, hostname, is_ec2};
pub use values::{Inputs, Value, Values};
