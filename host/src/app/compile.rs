//! `ochopod compile`: a plugin compiled ahead of time. Also what a running host has a child do.

use super::error::StartError;
use crate::{cli::Compile, init::Ending, plugin};

pub(super) fn compile(compile: &Compile) -> Result<Ending, StartError> {
    plugin::compile(&compile.plugin, &compile.output).map_err(StartError::Plugin)?;
    Ok(Ending::Stopped)
}
