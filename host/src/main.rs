//! The `ochopod` binary.

use std::{env, ffi::OsString, process::ExitCode};

use ochopod::init::launch;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if launch::is_launch(&arguments) {
        return launch::run(arguments);
    }
    ExitCode::SUCCESS
}
