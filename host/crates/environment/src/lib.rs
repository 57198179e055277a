//! The environment of the process as a value, and which of its variables are secret.
//!
//! Guarantees: nothing here reads the environment of the process. The binary reads it once, into an [`Env`], and passes it
//! down. Names alone decide which variables are secret and where they are passed. No result for registration, plugins or
//! sub-process contains a secret, or the credentials of a URL in a value of the host's variables.
//!
//! State: none. Must not know: which settings exist, and how the sub-process is started.
//!
//! | module | content |
//! |---|---|
//! | `env` | [`Env`], the variables by name |
//! | `secret` | secrets of the host, of the platform and of the sub-process; credentials in URLs |

mod env;
mod secret;

pub use env::Env;
pub use secret::{
    PREFIX, Withheld, is_passable, is_platform_secret, is_secret, is_secret_variable, is_sub_process_secret,
    public_environment, sub_process_secret_names, sub_process_secrets, without_credentials, without_url_credentials,
};

/// Returns the container port that a variable maps: `PORT_<n>`. Other `PORT_*` variables belong to the platform.
#[must_use]
pub fn mapped_port(variable: &str) -> Option<u16> {
    let name = variable.strip_prefix("PORT_")?;
    ochopod_model::port(name).filter(|port| *name == port.to_string())
}
