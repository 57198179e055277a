//! Runs a shell command line whose output goes to the pod's log, and exits with it.

use ochopod_sdk::{Cluster, Command, Lifecycle, Result, Settings};

#[derive(Default)]
struct Shell;

impl Lifecycle for Shell {
    fn settings() -> Settings {
        Settings { shell: true, pipe_subprocess: true, ..Settings::default() }
    }

    fn configure(&mut self, _: &Cluster) -> Result<Command> {
        Ok(Command::new("sleep $LAPSE && echo 'hello world' && exit 0").env("LAPSE", 5))
    }
}

ochopod_sdk::export!(Shell);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    #[test]
    fn the_text_is_passed_to_the_shell_with_its_variable() {
        let command = Shell.configure(&cluster([pod(0)]).view_of(0)).unwrap();
        assert!(Shell::settings().shell);
        assert!(command.program.starts_with("sleep $LAPSE"));
        assert_eq!(command.environment["LAPSE"], "5");
    }
}
