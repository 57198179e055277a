//! Write ochopod plugins in Rust.
//!
//! A plugin decides what a pod runs. Implement [`Lifecycle`], name the type in [`export!`], and build the crate (a
//! `cdylib`) with `cargo build --target wasm32-wasip2 --release`: the `.wasm` is the plugin.
//!
//! ```
//! use ochopod_sdk::{Cluster, Command, Lifecycle, Result, info};
//!
//! #[derive(Default)]
//! struct Web;
//!
//! impl Lifecycle for Web {
//!     fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
//!         info!("pod {} of {}", cluster.index() + 1, cluster.size());
//!         let upstream = cluster.grep("database", 5432, false)?;
//!         Ok(Command::new("web-server").arg("--port").arg("80").env("UPSTREAM", upstream))
//!     }
//! }
//!
//! ochopod_sdk::export!(Web);
//!
//! // Natively, callbacks are plain methods: unit tests need neither a host nor WebAssembly.
//! use ochopod_sdk::testing;
//!
//! let cluster = testing::cluster([testing::pod(0), testing::pod(1)])
//!     .dependency("database", [testing::pod(4)])
//!     .view_of(1);
//! let command = Web.configure(&cluster)?;
//! assert_eq!(command, Command::new("web-server").args(["--port", "80"]).env("UPSTREAM", "127.0.0.6:5432"));
//! # Ok::<(), ochopod_sdk::Error>(())
//! ```
//!
//! Callbacks are called one at a time. State may be stored in the plugin's value, which `Default` creates, but it may
//! be lost between any two callbacks: a callback that panics, exceeds its deadline or uses too much memory discards the
//! instance, and the host builds a new one. Lifecycle and model have separate instances, and each run of a tool has a
//! new one.
//!
//! | to | see |
//! |---|---|
//! | run, check and signal the sub-process | [`Lifecycle`], [`Settings`], [`Command`] |
//! | configure the cluster, declare dependencies, report its status | [`Model`], [`ModelSettings`] |
//! | provide commands for `POST /exec` | [`Tool`], [`Output`] |
//! | read peers and dependencies | [`Cluster`], [`Pod`] |
//! | log | [`debug!`], [`info!`], [`warning!`], [`error!`] |
//! | query and signal the sub-process, run programs of the container | [`process`], [`exec`] |
//! | connect to a server within a time limit | [`net::connect`], not `TcpStream::connect_timeout` of `std` |
//! | use files, other sockets, time, the environment | `std`, within the granted [`Wants`] |

#[doc(hidden)]
pub mod adapter;
#[doc(hidden)]
pub mod bindings;
mod cluster;
mod command;
mod convert;
mod error;
pub mod exec;
mod lifecycle;
mod log;
mod model;
pub mod net;
pub mod process;
mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod tool;

pub use cluster::{Cluster, Pod, Pods};
pub use command::Command;
pub use error::{Error, Result};
pub use lifecycle::Lifecycle;
pub use log::{Level, log};
pub use model::{Model, Reactive};
pub use serde_json::{self, Value, json};
pub use settings::{Batch, Directory, ModelSettings, OnChange, Settings, Wants};
pub use tool::{Output, Tool};

/// Makes the crate a plugin: `export!(MyLifecycle)`, and optionally `model: MyModel` and `tools: [MyTool, …]`.
///
/// Used once per crate. Each named type implements `Default` in addition to its trait.
///
/// ```
/// # use ochopod_sdk::{Cluster, Command, Lifecycle, Model, ModelSettings, Output, Result, Tool};
/// # #[derive(Default)] struct Web;
/// # impl Lifecycle for Web {
/// #     fn configure(&mut self, _: &Cluster) -> Result<Command> { Ok(Command::new("web-server")) }
/// # }
/// # #[derive(Default)] struct WebModel;
/// # impl Model for WebModel {}
/// # #[derive(Default)] struct Hello;
/// # impl Tool for Hello {
/// #     fn name(&self) -> &'static str { "hello" }
/// #     fn run(&mut self, _: &[String], _: &[String]) -> Result<Output> { Ok("hello".into()) }
/// # }
/// ochopod_sdk::export!(Web, model: WebModel, tools: [Hello]);
/// ```
#[macro_export]
macro_rules! export {
    (@plugin $lifecycle:ty, $model:ty, [$($tool:ty),*]) => {
        #[allow(unsafe_code, reason = "the component's exports are symbols")]
        const _: () = {
            struct Plugin;

            ::std::thread_local! {
                static LIFECYCLE: ::std::cell::RefCell<$lifecycle> = ::std::default::Default::default();
                static MODEL: ::std::cell::RefCell<$model> = ::std::default::Default::default();
            }

            impl $crate::adapter::Plugin for Plugin {
                type Lifecycle = $lifecycle;
                type Model = $model;

                fn lifecycle<R>(call: impl FnOnce(&mut $lifecycle) -> R) -> R {
                    LIFECYCLE.with_borrow_mut(call)
                }

                fn model<R>(call: impl FnOnce(&mut $model) -> R) -> R {
                    MODEL.with_borrow_mut(call)
                }

                fn tools() -> ::std::vec::Vec<::std::boxed::Box<dyn $crate::Tool>> {
                    ::std::vec![$(::std::boxed::Box::new(<$tool as ::std::default::Default>::default())),*]
                }
            }

            type Adapter = $crate::adapter::Adapter<Plugin>;

            // A native library has no such symbols: there, only the types are checked.
            #[cfg(target_family = "wasm")]
            $crate::bindings::__export_ochopod_plugin!(Adapter with_types_in $crate::bindings);
            #[cfg(not(target_family = "wasm"))]
            const _: () = Adapter::CHECKED;
        };
    };
    ($lifecycle:ty $(, model: $model:ty)? $(,)?) => {
        $crate::export!($lifecycle $(, model: $model)?, tools: []);
    };
    ($lifecycle:ty, tools: [$($tool:ty),* $(,)?] $(,)?) => {
        $crate::export!(@plugin $lifecycle, $crate::Reactive, [$($tool),*]);
    };
    ($lifecycle:ty, model: $model:ty, tools: [$($tool:ty),* $(,)?] $(,)?) => {
        $crate::export!(@plugin $lifecycle, $model, [$($tool),*]);
    };
}
