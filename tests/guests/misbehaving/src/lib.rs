//! A plugin that does what the test tells it, per callback, and records each call in the pod's log.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, net::TcpStream, time::Duration};

use ochopod_sdk::{
    Cluster, Command, Dependency, Lifecycle, Model, ModelSettings, Output, Pod, Result, Settings, Tool, Value, bail,
    exec, info, json, process,
};

use behaviour::{act, behave};

mod behaviour;
mod wasi;

#[derive(Default)]
struct Misbehaving {
    /// Behaviours that a signal set, by callback. They vanish with the instance.
    told: BTreeMap<String, String>,
    /// Callbacks of this instance so far.
    calls: u32,
}

impl Misbehaving {
    fn called(&mut self, callback: &str, details: &str) -> Result<()> {
        self.calls += 1;
        info!("callback {callback}{details}");
        match self.told.get(callback) {
            Some(told) => act(told),
            None => behave(callback),
        }
    }
}

impl Lifecycle for Misbehaving {
    fn settings() -> Settings {
        misbehave_or_panic("settings");
        Settings::default()
    }

    fn initialize(&mut self) -> Result<()> {
        self.called("initialize", "")
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        self.called("can-configure", &seen(cluster))
    }

    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.called("configure", &seen(cluster))?;
        if let Ok(program) = env::var("ochopod_test_program") {
            return Ok(Command::new(program));
        }
        let text = env::var("ochopod_test_command").unwrap_or_else(|_| "exec sleep 86400".to_owned());
        Ok(Command::shell(text).env("OCHOPOD_TEST_INDEX", cluster.index).env("OCHOPOD_TEST_SEQ", cluster.seq))
    }

    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        self.called("configured", &seen(cluster))
    }

    fn sanity_check(&mut self, pid: u32) -> Result<Value> {
        self.called("sanity-check", &format!(" pid={pid}"))?;
        Ok(json!({"pid": pid, "calls": self.calls}))
    }

    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        self.called("signaled", &pid.map(|pid| format!(" pid={pid}")).unwrap_or_default())?;
        let body = body.unwrap_or_default();
        if let Some(told) = body.get("behave").and_then(Value::as_object) {
            self.told = told.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
        }
        if let Some(wish) = body.get("try").and_then(Value::as_str) {
            return attempt(wish, body.get("with").and_then(Value::as_str).unwrap_or_default());
        }
        Ok(json!({"body": body, "pid": pid, "calls": self.calls}))
    }

    fn tear_down(&mut self, pid: u32) -> Result<()> {
        self.called("tear-down", &format!(" pid={pid}"))?;
        process::signal(process::SIGTERM)
    }

    fn finalize(&mut self) -> Result<()> {
        self.called("finalize", "")
    }
}

#[derive(Default)]
struct Watching;

impl Model for Watching {
    fn settings() -> ModelSettings {
        misbehave_or_panic("model-settings");
        ModelSettings::default()
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        info!("callback probe{}", seen(cluster));
        behave("probe")?;
        Ok(Some(format!("{} pods probed", cluster.size)))
    }
}

#[derive(Default)]
struct Report;

impl Tool for Report {
    fn name(&self) -> &'static str {
        misbehave_or_panic("list");
        "report"
    }

    fn help(&self) -> &'static str {
        "says what it was given: a line per argument, then a line per upload with its size"
    }

    fn run(&mut self, arguments: &[String], uploads: &[String]) -> Result<Output> {
        info!("callback run {}", arguments.join(" "));
        behave("run")?;
        let mut lines = arguments.to_vec();
        for name in uploads {
            lines.push(format!("{name} {}", fs::read(format!("/uploads/{name}"))?.len()));
        }
        Ok(Output { code: 0, stdout: lines })
    }
}

/// A tool that behaves as its arguments say: `act spin`, `act sleep:2`.
#[derive(Default)]
struct Act;

impl Tool for Act {
    fn name(&self) -> &'static str {
        "act"
    }

    fn run(&mut self, arguments: &[String], _: &[String]) -> Result<Output> {
        info!("callback run act {}", arguments.join(" "));
        arguments.iter().try_for_each(|told| act(told))?;
        Ok("done".into())
    }
}

/// For callbacks that cannot refuse.
#[allow(clippy::panic, reason = "that is what it was told")]
fn misbehave_or_panic(callback: &str) {
    if let Err(e) = behave(callback) {
        panic!("{e}");
    }
}

/// ` index=0 seq=3 size=2 pods=[3,4] db=[0]`: pods by their `seq`, in the order of the view.
fn seen(cluster: &Cluster) -> String {
    let seqs = |pods: &[Pod]| pods.iter().map(|pod| pod.seq.to_string()).collect::<Vec<_>>().join(",");
    let Cluster { index, seq, size, pods, .. } = cluster;
    let mut text = format!(" index={index} seq={seq} size={size} pods=[{}]", seqs(pods));
    for Dependency { name, pods } in &cluster.dependencies {
        let _ = write!(text, " {name}=[{}]", seqs(pods));
    }
    text
}

/// Tries what a sandbox may deny, and says what came of it.
fn attempt(wish: &str, argument: &str) -> Result<Value> {
    Ok(match wish {
        "read" => json!(fs::read_to_string(argument)?),
        "write" => json!(fs::write(argument, "written by a plugin")?),
        "list" => {
            let entries =
                fs::read_dir(argument)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
            json!(entries.collect::<std::io::Result<Vec<_>>>()?)
        }
        "environment" => json!(env::vars().collect::<BTreeMap<_, _>>()),
        "connect" => json!(TcpStream::connect(argument).map(|stream| stream.peer_addr().map(|a| a.to_string()))??),
        "listen" => json!(std::net::TcpListener::bind(argument)?.local_addr()?.to_string()),
        "exec" => {
            let output = exec::run(argument.split(' '), b"", Duration::from_mins(1))?;
            json!({"code": output.code, "stdout": String::from_utf8_lossy(&output.stdout)})
        }
        "process" => json!({
            "pid": process::pid(),
            "previous": process::previous(),
            "running": process::running(),
            "memory": process::usage().map(|usage| usage.memory),
        }),
        "signal" => json!(process::signal(argument.parse()?)?),
        "act" => json!(act(argument)?),
        _ => bail!("nothing to try: {wish:?}"),
    })
}

ochopod_sdk::export!(Misbehaving, model: Watching, tools: [Report, Act]);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    #[test]
    fn what_a_callback_saw_is_told_by_seq() {
        let view = cluster([pod(3), pod(4)]).dependency("db", [pod(0)]).seen_by(4);
        assert_eq!(seen(&view), " index=1 seq=4 size=2 pods=[3,4] db=[0]");
    }

    #[test]
    fn a_signal_changes_what_a_callback_does() {
        let mut plugin = Misbehaving::default();
        assert_eq!(plugin.sanity_check(7).unwrap(), json!({"pid": 7, "calls": 1}));
        plugin.signaled(Some(json!({"behave": {"sanity-check": "reject:no"}})), None).unwrap();
        assert_eq!(plugin.sanity_check(7).unwrap_err().to_string(), "no");
        plugin.signaled(Some(json!({"behave": {}})), None).unwrap();
        assert!(plugin.sanity_check(7).is_ok());
    }

    #[test]
    fn an_unknown_behaviour_is_refused() {
        assert_eq!(act("dance").unwrap_err().to_string(), "no such behaviour: \"dance\"");
    }
}
