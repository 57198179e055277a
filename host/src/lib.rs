//! The ochopod pod host as a library. The binary is [`app::start`] and nothing else.
//!
//! # Theory of operation
//!
//! A *pod* is one process of this host: it registers itself in a store, supervises one sub-process, and answers a control
//! API over HTTP. The pods of one cluster elect a leader, which posts the view of all pods to each of them whenever it
//! changes. What a pod does then is the *plugin*: a WebAssembly component whose callbacks compute, for one, the command
//! line of the sub-process.
//!
//! Two pure machines decide. [`lifecycle::Machine`] holds the life of one pod: requests, callbacks, the sub-process and
//! time go in, effects come out. [`leader::Machine`] holds one leadership: what is registered, what was configured and
//! what pods answer go in, requests and writes come out. Neither knows a runtime; each has one actor that carries its
//! effects out and feeds back what came of them.
//!
//! ```text
//!            HTTP                        store (ZooKeeper, or embedded)
//!             │                                │
//!         control ──Request──▶ lifecycle    coord::Member ──Leadership──▶ leader
//!             │                 │    │         ▲      │                     │  │
//!             │           callbacks  spawn     │   epoch of the holder      │  posts views to every
//!             │                 ▼    ▼         │      ▼                     │  pod's control API,
//!             │            plugin    init   retire   Fence ◀── control      │  its own included
//!             ▼                                                             ▼
//!        reports (watch channels): Membership, LifecycleReport, LeaderReport
//! ```
//!
//! # Who owns what
//!
//! | what | its only writer | others see it through |
//! |---|---|---|
//! | every child process | the `init` thread | `Init::spawn`, the exit that comes with each child |
//! | the sub-process's state, the queue of requests | `LifecycleActor` | `LifecycleHandle`, `watch<LifecycleReport>` |
//! | a plugin instance (lifecycle, model) | its worker, on the guests' runtime | `plugin::Lifecycle`, `plugin::Model` |
//! | session, registration, lock node | the membership actor | `Member`, `watch<Membership>` |
//! | which leadership is obeyed | `Fence` | `Fence::admit`, `Fence::admitted` |
//! | a leadership and its rollout | `Leader`, inside a `Leadership` | `watch<LeaderReport>` |
//! | the configuration in force, and its services, backends… | `Pilot`, which lends them a `Crew` | `watch<Roster>` |
//! | log lines | `telemetry` | `LogTail` |
//!
//! [`pilot`] accompanies an application, which may be a pod or any command: it registers services, checks them, watches what
//! they depend on and runs hooks around its life. It has a pure machine and an actor of its own, and shares `init`,
//! `telemetry` and the rest with pods. Without a plugin no engine is started.
//!
//! # Threads
//!
//! The host's duties share one thread (control API, both actors, coordination). `init` has a thread of its own, which lives
//! as long as the host; guests run on two others, so that one that computes for ever delays nobody.
//!
//! # Modules
//!
//! Upper ones may use lower ones, never the reverse. wasmtime is named in [`plugin`] only, the ZooKeeper client in
//! [`coord`], nix in [`init`] (and where [`plugin`] checks whose file it maps and [`interfaces`] lists them), rustls in [`coord`],
//! [`discovery`] and [`settings`] (and where [`app`] chooses its cryptography).
//!
//! | module | what it holds |
//! |---|---|
//! | [`app`] | the commands: builds the actors and hands each what it needs; the order of leaving |
//! | [`cli`], [`settings`] | the command line; settings, all read and judged at once |
//! | [`control`] | the control API |
//! | [`leader`], [`lifecycle`] | the two machines and their actors |
//! | [`pilot`] | services, backends, hooks and telemetry around an application |
//! | [`plugin`] | components in a sandbox |
//! | [`coord`] | sessions, registration, election, watching |
//! | [`discovery`] | services registered and found in Consul, etcd or ZooKeeper |
//! | [`template`], [`interfaces`] | Go's templates; addresses of this machine by their interfaces |
//! | [`init`], [`process`] | every spawn and wait; what is read of a sub-process |
//! | [`status`], [`telemetry`], [`backoff`], `wake` | what pods say about themselves; logs and counters; delays; when to look again |
//! | [`cluster`] | the vocabulary: names, registrations, views, digests |

pub mod app;
pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod coord;
pub mod discovery;
pub mod init;
pub mod interfaces;
pub mod leader;
pub mod lifecycle;
pub mod pilot;
pub mod plugin;
pub mod process;
pub mod settings;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod telemetry;
pub mod template;
mod wake;
