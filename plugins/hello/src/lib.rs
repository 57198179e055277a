//! The smallest plugin: every pod runs one harmless command.

use ochopod_sdk::{Cluster, Command, Lifecycle, Result, info};

#[derive(Default)]
struct Hello;

impl Lifecycle for Hello {
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        info!("hello from pod {} of {}", cluster.index() + 1, cluster.size());
        Ok(Command::new("sleep").arg("86400"))
    }
}

ochopod_sdk::export!(Hello);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    #[test]
    fn every_pod_runs_the_same_harmless_command() {
        let view = cluster([pod(0), pod(1)]);
        for seq in [0, 1] {
            assert_eq!(Hello.configure(&view.view_of(seq)).unwrap(), Command::new("sleep").arg("86400"));
        }
    }
}
