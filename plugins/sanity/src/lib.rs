//! A sanity check that fails: after three in a row the sub-process is turned off.

use ochopod_sdk::{Cluster, Command, Lifecycle, Result, Settings, Value, bail};

#[derive(Default)]
struct Sanity;

impl Lifecycle for Sanity {
    fn settings() -> Settings {
        Settings { checks: 3, check_every: 5.0, ..Settings::default() }
    }

    fn configure(&mut self, _: &Cluster) -> Result<Command> {
        Ok(Command::new("sleep").arg("3600"))
    }

    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        bail!("let us fail the sanity check just for fun")
    }
}

ochopod_sdk::export!(Sanity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_fails_and_three_failures_are_tolerated() {
        assert_eq!(Sanity.sanity_check(1).unwrap_err().to_string(), "let us fail the sanity check just for fun");
        assert_eq!(Sanity::settings().checks, 3);
    }
}
