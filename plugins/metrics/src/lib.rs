//! Reports a metric: for how long the sub-process has been up.

use std::time::Instant;

use ochopod_sdk::{Cluster, Command, Lifecycle, Result, Settings, Value, json};

#[derive(Default)]
struct Metrics {
    /// The process seen last, and since when.
    seen: Option<(u32, Instant)>,
}

impl Lifecycle for Metrics {
    fn settings() -> Settings {
        Settings { check_every: 1.0, ..Settings::default() }
    }

    fn configure(&mut self, _: &Cluster) -> Result<Command> {
        Ok(Command::new("sleep").arg("3600"))
    }

    fn sanity_check(&mut self, pid: u32) -> Result<Value> {
        let since = match self.seen {
            Some((seen, since)) if seen == pid => since,
            _ => Instant::now(),
        };
        self.seen = Some((pid, since));
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        Ok(json!({ "uptime": format!("{minutes:.2} minutes (pid {pid})") }))
    }
}

ochopod_sdk::export!(Metrics);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_uptime_starts_again_with_each_process() {
        let start = Instant::now().checked_sub(Duration::from_secs(90)).unwrap();
        let mut plugin = Metrics { seen: Some((7, start)) };
        assert_eq!(plugin.sanity_check(7).unwrap(), json!({"uptime": "1.50 minutes (pid 7)"}));
        assert_eq!(plugin.sanity_check(8).unwrap(), json!({"uptime": "0.00 minutes (pid 8)"}));
        assert_eq!(plugin.seen.unwrap().0, 8);
    }
}
