//! The table of settings, and the reader of flags and `ochopod_*` variables.
//!
//! Guarantees: one table ([`SETTINGS`]) names each setting with its flag, variable, value, default and help. The command
//! line ([`Flags`]), `--help`, the reserved names ([`is_setting`]) and the table in `docs/settings.md` follow from it. A flag
//! takes precedence over its variable; an empty variable counts as unset. All errors are collected, and none contains the
//! value of a secret.
//!
//! State: none. Must not know: what a setting means. The settings of a pod are put together in the host's `settings` module;
//! only those that all programs share are read here ([`privileges`]). The flags of grants (`--dir`, `--env`, `--net`, `--run`,
//! `--exec`) are not settings: `host/src/settings/grant_flags.rs`.
//!
//! To add a setting: add a row to [`SETTINGS`], read it with [`SettingsReader`], run `make docs`.
//!
//! | module | content |
//! |---|---|
//! | `table` | the table |
//! | `flags` | [`Flags`]: the table as arguments of a command |
//! | `reader` | [`SettingsReader`]: values by name, errors collected |
//! | `error` | [`SettingError`] |
//! | [`privileges`] | user, group and resource limits of the programs that are started |

mod error;
mod flags;
pub mod privileges;
mod reader;
mod table;

pub use error::SettingError;
pub use flags::Flags;
pub use reader::{RawSetting, SettingsReader};
pub use table::{OVERRIDE_PREFIX, RLIMIT_PREFIX, SETTINGS, Setting, SettingKind, is_setting, markdown};
