//! `ochopod compile`: compiles a plugin ahead of time. A running host also starts it as a child.

use ochopod_init::HostExit;
use ochopod_plugin as plugin;

use super::error::StartError;
use crate::cli::CompileArgs;

pub(super) fn compile(args: &CompileArgs) -> Result<HostExit, StartError> {
    plugin::compile(&args.plugin, &args.output).map_err(StartError::Plugin)?;
    Ok(HostExit::Stopped)
}
