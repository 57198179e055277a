//! A sub-process that keeps failing: it is restarted, and the checks in between notice.

use ochopod_sdk::{Cluster, Command, Lifecycle, Result, Settings};

#[derive(Default)]
struct Misbehaved;

impl Lifecycle for Misbehaved {
    fn settings() -> Settings {
        Settings { checks: 3, check_every: 5.0, shell: true, ..Settings::default() }
    }

    fn configure(&mut self, _: &Cluster) -> Result<Command> {
        Ok(Command::new("echo kaboom && exit 1"))
    }
}

ochopod_sdk::export!(Misbehaved);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    #[test]
    fn the_command_is_a_shell_text_that_fails() {
        let command = Misbehaved.configure(&cluster([pod(0)]).view_of(0)).unwrap();
        assert!(Misbehaved::settings().shell);
        assert_eq!(command, Command::new("echo kaboom && exit 1"));
    }
}
