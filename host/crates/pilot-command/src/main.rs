//! The `ochopod-pilot` binary.

use std::process::ExitCode;

use clap::Parser as _;
use ochopod_entry as entry;
use ochopod_init::HostExit;
use ochopod_pilot_command::{StandaloneArgs, normalize_go_flags, pilot};

/// Name of the binary in error messages.
const PROGRAM: &str = "ochopod-pilot";

fn main() -> ExitCode {
    entry::main(|arguments, env| {
        let args = match StandaloneArgs::try_parse_from(normalize_go_flags(arguments, 1)) {
            Ok(args) => args.pilot,
            Err(error) if error.use_stderr() => {
                return entry::print_error(PROGRAM, &error.to_string(), HostExit::Usage);
            }
            Err(help) => return entry::print(&help.to_string()),
        };
        if let Err(error) = entry::init_process() {
            return entry::finish(PROGRAM, Err(ochopod_pilot_command::PilotError::from(error)));
        }
        entry::finish(PROGRAM, entry::block_on(pilot(args, env)))
    })
}
