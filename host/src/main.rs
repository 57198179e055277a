//! The `ochopod` binary.

use std::{env, ffi::OsString, process::ExitCode};

use ochopod::{
    app,
    init::{Terminations, launch},
    settings::Env,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if launch::is_launch(&arguments) {
        return launch::run(arguments);
    }
    Terminations::hold();
    app::start(arguments, &env::vars_os().collect::<Env>())
}
