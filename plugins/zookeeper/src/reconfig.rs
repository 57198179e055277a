//! Changes of an ensemble, by ZooKeeper's own client. Only that program reads the password of the super user.

use std::time::Duration;

use ochopod_sdk::{Result, bail, exec};

use crate::{
    ensemble::{Ensemble, Listed},
    server::Options,
};

const MAIN: &str = "org.apache.zookeeper.ZooKeeperMain";
/// A JVM starts, and the servers agree.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Makes a server that has joined a voter.
pub(crate) fn add(options: &Options, serving: &[String], ensemble: &Ensemble, server: &Listed) -> Result<()> {
    run(options, serving, ensemble, ["-add", &server.line()])
}

/// Removes a server.
pub(crate) fn remove(options: &Options, serving: &[String], ensemble: &Ensemble, id: u64) -> Result<()> {
    run(options, serving, ensemble, ["-remove", &id.to_string()])
}

/// Changes the ensemble, if it still is as it was read.
fn run(options: &Options, serving: &[String], ensemble: &Ensemble, change: [&str; 2]) -> Result<()> {
    let login = format!("-Djava.security.auth.login.config={}", options.jaas);
    let servers = serving.join(",");
    let java = ["java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", &login];
    let level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off";
    let client = [level, "-cp", &options.classes, MAIN, "-server", &servers, "reconfig", "-v", &ensemble.version];
    let output = exec::run([&java[..], &client[..], &change[..]].concat(), b"", TIMEOUT)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.code == 0 && text.contains("Committed new configuration") {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = [errors.trim(), text.trim()].into_iter().find_map(|text| text.lines().last()).unwrap_or_default();
    bail!("reconfig {} failed: {}", change.join(" "), reason.trim_end_matches([' ', ':']))
}
