//! One pod's nginx: its address, its files, and requests to it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ochopod_sdk::{Command, Error, Pod, Result, Value, bail, json, net};

const PORT: u16 = 8000;
/// Time that a stopping pod still serves, unless the operator sets `ochopod_web_drain`.
const DRAIN: f64 = 2.0;
/// Longest drain: `tear_down` must return within half of the grace.
const MAX_DRAIN: f64 = 3600.0;
const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_REPLY_BYTES: u64 = 1 << 16;
/// Kinds of temporary files, all below the directory of the pod.
const TEMPORARY: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// Address and files of one pod's nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    ip: String,
    /// Port that nginx listens at.
    port: u16,
    /// Directory of the operator, as nginx sees it.
    directory: Option<String>,
    /// `CLUSTER-SEQ`, which replies name; empty without a view.
    pod: String,
}

impl Server {
    /// Returns the server that follows from the registration of its pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let setting = |name: &str| pod.settings.get(name).cloned();
        let port = port(setting)?;
        // Behind a mapping the pod's address is another machine's, and the container's port is bound.
        let port = if is_shared(&pod.ip) { pod.reachable(port)? } else { port };
        let name = format!("{}-{}", setting("cluster").unwrap_or_default(), pod.seq);
        Ok(Self { ip: pod.ip.clone(), port, directory: setting("web_dir"), pod: name })
    }

    /// Returns the server from the pod's environment, which is available without a view of the cluster.
    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let setting = |name: &str| variable(&format!("ochopod_{name}"));
        let port = port(setting)?;
        let mapped = variable(&format!("PORT_{port}")).and_then(|mapped| mapped.trim().parse().ok());
        let port = mapped.filter(|_| is_shared(&ip)).unwrap_or(port);
        Ok(Self { ip, port, directory: setting("web_dir"), pod: String::new() })
    }

    /// Returns an error if the operator has not set or granted the directory.
    pub(crate) fn check(&self, guest: &Path) -> Result<()> {
        let Some(directory) = &self.directory else {
            bail!("ochopod_web_dir is not set: expected a directory, granted by --dir DIRECTORY::{}", guest.display());
        };
        if !directory.starts_with('/') || directory.contains(char::is_whitespace) {
            bail!("invalid ochopod_web_dir {directory:?}: expected an absolute path without white space");
        }
        if !guest.is_dir() {
            bail!("directory not granted: requires --dir {directory}::{}", guest.display());
        }
        Ok(())
    }

    /// Returns the name of the pod's directory: several pods of one machine may share that of the operator.
    fn name(&self) -> String {
        format!("web-{}-{}", self.ip.replace(':', "-"), self.port)
    }

    /// Returns the pod's directory as the plugin sees it.
    pub(crate) fn directory_in(&self, guest: &Path) -> PathBuf {
        guest.join(self.name())
    }

    /// Creates the pod's directory, and returns it as the plugin sees it. The pod no longer leaves.
    pub(crate) fn create_directory(&self, guest: &Path) -> Result<PathBuf> {
        let directory = self.directory_in(guest);
        fs::create_dir_all(directory.join("html"))?;
        let leaving = directory.join("leaving");
        if leaving.exists() {
            fs::remove_file(leaving)?;
        }
        Ok(directory)
    }

    /// Makes `/health` answer 404.
    pub(crate) fn set_leaving(&self, guest: &Path) -> Result<()> {
        Ok(fs::write(self.directory_in(guest).join("leaving"), "")?)
    }

    pub(crate) fn command(&self) -> Command {
        let prefix = format!("{}/{}/", self.directory.as_deref().unwrap_or_default(), self.name());
        Command::new("nginx").args(["-p", &prefix, "-e", "stderr", "-c", "nginx.conf"])
    }

    /// Returns nginx's configuration. Relative paths are below the pod's directory.
    pub(crate) fn configuration(&self) -> String {
        let temporary: String = TEMPORARY.map(|kind| format!("    {kind}_temp_path {kind};\n")).concat();
        let pod = &self.pod;
        let listen = match (is_shared(&self.ip), self.ip.contains(':')) {
            (true, true) => format!("listen [{}]:{};", self.ip, self.port),
            (true, false) => format!("listen {}:{};", self.ip, self.port),
            (false, true) => format!("listen {0}; listen [::]:{0};", self.port),
            (false, false) => format!("listen {};", self.port),
        };
        format!(
            "# Written by the plugin web.\n\
             daemon off;\n\
             pid pid;\n\
             error_log stderr;\n\
             events {{}}\n\
             http {{\n    \
                 access_log off;\n    \
                 types {{ text/html html; text/plain txt; }}\n\
             {temporary}    \
                 server {{\n        \
                     {listen}\n        \
                     root html;\n        \
                     add_header X-Pod \"{pod}\" always;\n        \
                     location = /health {{\n            \
                         if (-f $document_root/../leaving) {{ return 404; }}\n            \
                         return 200 ok;\n        \
                     }}\n        \
                     location = /status {{\n            \
                         stub_status;\n            \
                         allow 127.0.0.0/8;\n            \
                         allow ::1;\n            \
                         deny all;\n        \
                     }}\n    \
                 }}\n\
             }}\n"
        )
    }

    fn own_ip(&self) -> &str {
        if is_shared(&self.ip) { &self.ip } else { "127.0.0.1" }
    }

    /// Returns whether nothing listens.
    pub(crate) fn is_down(&self) -> bool {
        let connection = net::connect((self.own_ip(), self.port), TIMEOUT);
        connection.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Returns the body of a page, which must answer 200.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let ip = self.own_ip();
        let mut stream = match net::connect((ip, self.port), TIMEOUT) {
            Ok(stream) => stream,
            Err(error) => bail!("nginx at {ip}:{} cannot be reached: {error}", self.port),
        };
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut reply = String::new();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let exchanged = stream.write_all(request.as_bytes());
        let exchanged = exchanged.and_then(|()| stream.take(MAX_REPLY_BYTES).read_to_string(&mut reply));
        if let Err(error) = exchanged {
            bail!("nginx did not answer {path}: {}", Error::from(error));
        }
        let Some((head, body)) = reply.split_once("\r\n\r\n") else {
            bail!("nginx answered {path} with {:?}, expected HTTP", reply.chars().take(80).collect::<String>());
        };
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            bail!("nginx answered {path} with {status:?}, expected 200");
        }
        Ok(body.to_owned())
    }
}

/// Returns whether the pod shares the ports of its machine with other pods: its address is a loopback address.
fn is_shared(ip: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn port(setting: impl Fn(&str) -> Option<String>) -> Result<u16> {
    match setting("web_port") {
        None => Ok(PORT),
        Some(text) => match text.trim().parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => bail!("invalid ochopod_web_port {text:?}: expected a port"),
        },
    }
}

/// Returns the time that a stopping pod still serves.
pub(crate) fn drain(variable: impl Fn(&str) -> Option<String>) -> Result<Duration> {
    let Some(text) = variable("ochopod_web_drain") else { return Ok(Duration::from_secs_f64(DRAIN)) };
    match text.trim().parse() {
        Ok(seconds) if (0.0..=MAX_DRAIN).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => bail!("invalid ochopod_web_drain {text:?}: expected seconds from 0 to {MAX_DRAIN}"),
    }
}

/// Reads nginx's status: `Active connections: 1`, then a line of titles and the numbers `accepts handled requests`.
pub(crate) fn metrics(status: &str) -> Result<Value> {
    let numbers: Vec<u64> = status.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [active, accepted, _, requests, reads, writes, idle] = numbers.as_slice() else {
        bail!("nginx answered /status with {status:?}, expected seven numbers");
    };
    Ok(json!({
        "active_connections": active,
        "accepted_connections": accepted,
        "requests": requests,
        "reading": reads,
        "writing": writes,
        "waiting": idle,
    }))
}
