//! A plugin whose callbacks behave as the test selects, and record each call in the pod's log.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use ochopod_sdk::{
    Cluster, Command, Lifecycle, Model, ModelSettings, Output, Pod, Result, Settings, Tool, Value, Wants, bail, exec,
    info, json, net, process, serde_json::Map,
};

use behaviour::{act, behave};

mod behaviour;
mod wasi;

#[derive(Default)]
struct Misbehaving {
    /// Behaviours that a signal set, by callback. They vanish with the instance.
    behaviours: BTreeMap<String, String>,
    /// The command, the signal of a reload and the role that a signal set.
    texts: BTreeMap<String, String>,
    /// Callbacks of this instance so far.
    calls: u32,
}

impl Misbehaving {
    fn called(&mut self, callback: &str, details: &str) -> Result<()> {
        self.calls += 1;
        info!("callback {callback}{details}");
        match self.behaviours.get(callback) {
            Some(behaviour) => act(behaviour),
            None => behave(callback),
        }
    }

    /// Returns a text that a signal set, or else the variable `ochopod_test_<name>`.
    fn text(&self, name: &str) -> Option<String> {
        self.texts.get(name).cloned().or_else(|| env::var(format!("ochopod_test_{name}")).ok())
    }
}

/// Returns the texts of an object.
fn texts(object: &Map<String, Value>) -> BTreeMap<String, String> {
    object.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

impl Lifecycle for Misbehaving {
    fn settings() -> Settings {
        misbehave_or_panic("settings");
        Settings { wants: wants(), ..Settings::default() }
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
            return Ok(list("ochopod_test_sets")
                .iter()
                .fold(Command::new(program), |command, name| command.env(name, "x")));
        }
        let text = self.text("command").unwrap_or_else(|| "exec sleep 86400".to_owned());
        let command =
            Command::shell(text).env("OCHOPOD_TEST_INDEX", cluster.index()).env("OCHOPOD_TEST_SEQ", cluster.seq());
        match self.text("reload") {
            Some(signal) => Ok(command.reload(signal.parse()?)),
            None => Ok(command),
        }
    }

    fn ready(&mut self, cluster: &Cluster, pid: u32) -> Result<()> {
        self.called("ready", &format!(" pid={pid}{}", started_before(cluster)))
    }

    fn role(&mut self) -> Option<String> {
        self.text("role")
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
        if let Some(behaviours) = body.get("behave").and_then(Value::as_object) {
            self.behaviours = texts(behaviours);
        }
        if let Some(set) = body.get("set").and_then(Value::as_object) {
            self.texts = texts(set);
        }
        if let Some(kind) = body.get("try").and_then(Value::as_str) {
            return attempt(kind, body.get("with").and_then(Value::as_str).unwrap_or_default());
        }
        Ok(json!({"body": body, "pid": pid, "calls": self.calls}))
    }

    fn tear_down(&mut self, pid: u32) -> Result<()> {
        self.called("tear-down", &format!(" pid={pid}"))?;
        process::terminate()
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
        Ok(Some(format!("{} pods probed", cluster.size())))
    }

    fn reconcile(&mut self, cluster: &Cluster) -> Result<()> {
        let roles: Vec<String> = cluster.by_seq().iter().map(|pod| format!("{}:{}", pod.seq, pod.role)).collect();
        info!("callback reconcile{} roles=[{}]", seen(cluster), roles.join(","));
        behave("reconcile")
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
        "prints a line per argument, then a line per upload with its size"
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

/// A tool that behaves as its arguments select: `act spin`, `act sleep:2`.
#[derive(Default)]
struct Act;

impl Tool for Act {
    fn name(&self) -> &'static str {
        "act"
    }

    fn run(&mut self, arguments: &[String], _: &[String]) -> Result<Output> {
        info!("callback run act {}", arguments.join(" "));
        arguments.iter().try_for_each(|behaviour| act(behaviour))?;
        Ok("done".into())
    }
}

/// Returns its requests: `ochopod_test_network` and `ochopod_test_variables`, separated by commas.
fn wants() -> Wants {
    let (network, environment) = (list("ochopod_test_network"), list("ochopod_test_variables"));
    Wants { network, environment, ..Wants::default() }
}

/// Returns the words of a variable, separated by commas; none if it is not set.
fn list(variable: &str) -> Vec<String> {
    env::var(variable).map(|words| words.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// Misbehaves in a callback that cannot return an error.
#[allow(clippy::panic, reason = "the requested behaviour")]
fn misbehave_or_panic(callback: &str) {
    if let Err(e) = behave(callback) {
        panic!("{e}");
    }
}

/// Returns ` index=0 seq=3 size=2 pods=[3,4] db=[0]`: pods by their `seq`, in the order of the view. If
/// `ochopod_test_reads` names what to read, the same for that alone.
fn seen(cluster: &Cluster) -> String {
    if let Ok(what) = env::var("ochopod_test_reads") {
        return what.split(',').fold(String::new(), |text, what| format!("{text} {what}={}", read(cluster, what)));
    }
    let (index, seq, size) = (cluster.index(), cluster.seq(), cluster.size());
    let mut text = format!(" index={index} seq={seq} size={size} pods=[{}]", seqs(cluster));
    for name in cluster.dependencies() {
        let pods = cluster.dependency(&name).unwrap_or_default();
        let _ = write!(text, " {name}=[{}]", seqs(pods));
    }
    text
}

fn seqs(pods: impl IntoIterator<Item = Pod>) -> String {
    pods.into_iter().map(|pod| pod.seq.to_string()).collect::<Vec<_>>().join(",")
}

/// Reads one part of a view, and returns it as short text.
fn read(cluster: &Cluster, what: &str) -> String {
    let text = |result: Result<String>| result.unwrap_or_else(|error| error.to_string());
    match what {
        "index" => cluster.index().to_string(),
        "size" => cluster.size().to_string(),
        "me" => text(cluster.me().map(|pod| pod.key)),
        "oldest" => seqs(cluster.oldest()),
        "pod" => seqs(cluster.pod(&cluster.key())),
        "pods" => cluster.pods().len().to_string(),
        "pages" => cluster.iter().count().to_string(),
        "beyond" => cluster.range(usize::MAX, usize::MAX).len().to_string(),
        "keys" => cluster.keys().len().to_string(),
        "roles" => cluster.roles().concat(),
        "addresses" => text(cluster.addresses(80, false).map(|addresses| addresses.len().to_string())),
        "dependency" => text(cluster.dependency_size("db").map(|size| size.to_string())),
        "grep" => text(cluster.grep("db", 80, false)),
        "unknown" => text(cluster.grep(&"x".repeat(1 << 20), 80, false)),
        "always" => loop {
            std::hint::black_box(cluster.pods());
        },
        _ => String::new(),
    }
}

/// Returns ` started=[3,4]`: the pods whose start was requested before that of this one, by their `seq`.
fn started_before(cluster: &Cluster) -> String {
    let started = cluster.by_seq().into_iter().filter(|pod| pod.started).map(|pod| pod.seq.to_string());
    format!(" started=[{}]", started.collect::<Vec<_>>().join(","))
}

/// Tries an operation that a sandbox may deny, and returns the outcome.
fn attempt(kind: &str, argument: &str) -> Result<Value> {
    Ok(match kind {
        "read" => json!(fs::read_to_string(argument)?),
        "write" => json!(fs::write(argument, "written by a plugin")?),
        "list" => {
            let entries =
                fs::read_dir(argument)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
            json!(entries.collect::<std::io::Result<Vec<_>>>()?)
        }
        "environment" => json!(env::vars().collect::<BTreeMap<_, _>>()),
        "resolve" => {
            let addresses = (argument, 80).to_socket_addrs()?;
            json!(addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>())
        }
        "connect" => json!(TcpStream::connect(argument).map(|stream| stream.peer_addr().map(|a| a.to_string()))??),
        "connect-within" => json!(connect_often(argument)?),
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
        _ => bail!("nothing to try: {kind:?}"),
    })
}

/// Connects this number of times, each with this timeout in milliseconds: `10.0.0.1:80 100 500`. Returns the count of
/// each outcome.
fn connect_often(argument: &str) -> Result<BTreeMap<String, u32>> {
    let words: Vec<&str> = argument.split(' ').collect();
    let [address, times, milliseconds] = words.as_slice() else {
        bail!("not ADDRESS TIMES MILLISECONDS: {argument:?}")
    };
    let timeout = Duration::from_millis(milliseconds.parse()?);
    let mut outcomes = BTreeMap::new();
    for _ in 0..times.parse()? {
        let outcome = match net::connect(address, timeout) {
            Ok(_) => "connected".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    Ok(outcomes)
}

ochopod_sdk::export!(Misbehaving, model: Watching, tools: [Report, Act]);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    #[test]
    fn a_view_is_logged_by_seq() {
        let view = cluster([pod(3), pod(4)]).dependency("db", [pod(0)]).view_of(4);
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
    fn a_signal_changes_command_reload_and_role() {
        let mut plugin = Misbehaving::default();
        let view = cluster([pod(3)]).view_of(3);
        let before = plugin.configure(&view).unwrap();
        assert_eq!((before.reload, plugin.role()), (None, None));
        let set = json!({"set": {"command": "true", "reload": "1", "role": "primary"}});
        plugin.signaled(Some(set), None).unwrap();
        let after = plugin.configure(&view).unwrap();
        assert_eq!((after.program.as_str(), after.reload), ("true", Some(1)));
        assert_eq!(plugin.role().as_deref(), Some("primary"));
    }

    #[test]
    fn not_yet_differs_from_a_rejection() {
        assert!(act("not-yet:soon").unwrap_err().is_not_yet());
        assert!(act("until-file:/nonexistent").unwrap_err().is_not_yet());
        assert!(act("until-file:/").is_ok());
        assert!(!act("reject").unwrap_err().is_not_yet());
    }

    #[test]
    fn an_unknown_behaviour_is_refused() {
        assert_eq!(act("dance").unwrap_err().to_string(), "no such behaviour: \"dance\"");
    }
}
