//! The `ochopod` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ochopod_entry::main(ochopod::app::start)
}
