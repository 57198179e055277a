//! `ochopod up`: several pods of one cluster in this process, for development.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsFd as _, unix::fs::FileTypeExt as _},
    time::{Duration, Instant},
};

use ochopod_entry::SystemError;
use ochopod_environment::Env;
use ochopod_init::{self as init, HostExit, Signal, TerminationSignals};
use ochopod_store::{EmbeddedStore, StoreBackend};
use ochopod_telemetry::{BackgroundWriter, PodLog, escape::Escaped};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tracing::Instrument as _;

use super::{
    error::StartError,
    host_context::{Detected, HostContext, off_thread},
    pod::{Pod, PodWatch},
    shutdown::{Shutdown, report_stop_timeout},
};
use crate::{
    cli::{MAX_PODS, UpArgs},
    settings::Settings,
};

/// Pods in each network of 127.0.0.0/8: 127.0.0.2 to 127.0.0.251, 127.0.1.2 to 127.0.1.251, and so on.
const PODS_PER_NETWORK: u16 = 250;
/// Length of the queue of lines.
const QUEUE_LEN: usize = 256;
/// Time limit for writing the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for them if the shutdown has used up its time.
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

const COMMANDS: &str = "add, kill N, quit";

pub(super) async fn up(up: UpArgs, env: &Env) -> Result<HostExit, StartError> {
    let terminations = TerminationSignals::listen().map_err(SystemError::of("cannot handle signals"))?;
    let detected = tokio::select! {
        detected = Detected::detect(env, &up.settings, true) => detected?,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let (owned, flags, grants) = (env.clone(), up.settings.clone(), up.grants.clone());
    let read = off_thread("settings", move || {
        let input = detected.input(&owned, &flags, &grants);
        let (settings, zk) = Settings::read_for_up(input).map_err(StartError::Settings)?;
        let log = PodLog::start(settings.log_level, settings.log_format, settings.log.as_ref());
        Ok::<_, StartError>((settings, zk, log.map_err(StartError::Log)?))
    });
    let (settings, zk, log) = tokio::select! {
        read = read => read??,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let _outputs = init::lend_outputs(&settings.privileges);
    let embedded = EmbeddedStore::new(settings.session);
    let store = match zk {
        Some(address) => StoreBackend::zookeeper(address, settings.session),
        None => StoreBackend::embedded(embedded.clone()),
    };
    for warning in settings.security_warnings() {
        warning.log();
    }
    for (name, note) in settings.withheld.notes() {
        tracing::info!(name, "{note}");
    }
    let host = tokio::select! {
        host = HostContext::start(&settings, &up.plugin, store, log) => host?,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let timeout = settings.stop_timeout(host.lifecycle.grace);
    report_stop_timeout(&settings, timeout, host.lifecycle.grace);
    let stop = Shutdown::new(&terminations, timeout);
    let console = ConsoleWriter::start()?;
    let mut pods = PodSet::new(&host, settings, embedded, stop.clone(), console.clone());
    for _ in 0..up.pods {
        pods.add()?;
    }
    console.line(&format!("commands: {COMMANDS}"));
    let mut input = CommandInput::open();
    loop {
        tokio::select! {
            () = stop.requested.cancelled() => break,
            line = pods.events.recv() => console.line(&line.unwrap_or_default()),
            Some(_) = pods.tasks.join_next() => {}
            line = input.next() => match line {
                Some(line) if pods.execute(&line) => {}
                _ => break,
            },
        }
    }
    let schedule = stop.clock.start();
    stop.requested.cancel();
    while !pods.tasks.is_empty() {
        tokio::select! {
            biased;
            line = pods.events.recv() => console.line(&line.unwrap_or_default()),
            _ = pods.tasks.join_next() => {}
        }
    }
    while let Ok(line) = pods.events.try_recv() {
        console.line(&line);
    }
    console.line("all pods stopped");
    host.shut_down(&stop).await;
    let left = schedule.end.saturating_duration_since(Instant::now()).max(MIN_FLUSH_TIMEOUT);
    console.0.flush(FLUSH_TIMEOUT.min(left));
    Ok(HostExit::Stopped)
}

/// Lines of standard input.
struct CommandInput(Option<Lines<BufReader<Stdin>>>);

impl CommandInput {
    /// Opens standard input. A device that is not a terminal, such as `/dev/null`, counts as input without end.
    fn open() -> Self {
        let input = std::io::stdin().as_fd().try_clone_to_owned().and_then(|input| File::from(input).metadata());
        let device = input.is_ok_and(|input| input.file_type().is_char_device());
        let is_unattended = device && !std::io::stdin().is_terminal();
        Self((!is_unattended).then(|| BufReader::new(tokio::io::stdin()).lines()))
    }

    /// Returns the next line; none at the end of the input.
    async fn next(&mut self) -> Option<String> {
        match &mut self.0 {
            Some(lines) => lines.next_line().await.ok().flatten(),
            None => std::future::pending().await,
        }
    }
}

/// Returns the address of a pod, counted from 1; none if there are no more.
fn address(number: u16) -> Option<Ipv4Addr> {
    let position = number.checked_sub(1).filter(|position| *position < MAX_PODS)?;
    let network = u8::try_from(position / PODS_PER_NETWORK).ok()?;
    let host = u8::try_from(position % PODS_PER_NETWORK + 2).ok()?;
    Some(Ipv4Addr::new(127, 0, network, host))
}

/// The pods of this process.
struct PodSet<'a> {
    host: &'a HostContext,
    settings: Settings,
    embedded: EmbeddedStore,
    stop: Shutdown,
    console: ConsoleWriter,
    /// Pods, with the reports of their changes.
    tasks: JoinSet<()>,
    running: BTreeMap<u16, (AbortHandle, PodWatch)>,
    added: u16,
    events_tx: mpsc::Sender<String>,
    events: mpsc::Receiver<String>,
}

impl<'a> PodSet<'a> {
    fn new(
        host: &'a HostContext,
        settings: Settings,
        embedded: EmbeddedStore,
        stop: Shutdown,
        console: ConsoleWriter,
    ) -> Self {
        let (events_tx, events) = mpsc::channel(QUEUE_LEN);
        let (tasks, running) = (JoinSet::new(), BTreeMap::new());
        Self { host, settings, embedded, stop, console, tasks, running, added: 0, events_tx, events }
    }

    /// Adds a pod at the next address.
    fn add(&mut self) -> Result<(), StartError> {
        let number = self.added + 1;
        let address = address(number).ok_or(StartError::NoAddress(usize::from(number)))?;
        let settings = self.settings.with_address(IpAddr::V4(address));
        let listen = settings.listen;
        // All log records of this pod have its number, on each level: also those of plugin, tools and sub-process.
        let span = tracing::error_span!("pod", pod = number);
        let pod = span.in_scope(|| Pod::build(self.host, settings, None, &self.stop.clock))?;
        self.added = number;
        self.console.line(&format!("pod {number}: listening on {listen}"));
        let watch = pod.watch.clone();
        let events_tx = self.events_tx.clone();
        let (stop, reported) = (self.stop.clone(), watch.clone());
        let run = async move {
            tokio::select! {
                _ = pod.run(stop) => {
                    // The receiver may be gone when all pods stop.
                    _ = events_tx.send(format!("pod {number}: stopped")).await;
                }
                () = report_changes(number, reported, events_tx.clone()) => {}
            }
        };
        let abort = self.tasks.spawn(run.instrument(span));
        self.running.insert(number, (abort, watch));
        Ok(())
    }

    /// Stops a pod as a crash of its machine would: only its session remains, which expires. (In a real ZooKeeper it is
    /// closed, as the client does when it is dropped.)
    fn kill(&mut self, number: u16) {
        let Some((abort, watch)) = self.running.remove(&number) else {
            self.console.line(&format!("no such pod: {number}"));
            return;
        };
        let pid = watch.lifecycle.borrow().pid;
        let session = watch.membership.borrow().session;
        abort.abort();
        if let Some(pid) = pid {
            self.host.init.signal_group(pid, Signal::SIGKILL);
        }
        if let Some(session) = session {
            self.embedded.expire(session);
        }
        self.console.line(&format!("pod {number}: killed"));
    }

    /// Executes a line of standard input. Returns false for quit.
    fn execute(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["quit"] => return false,
            ["add"] => {
                if let Err(error) = self.add() {
                    self.console.line(&format!("cannot add pod: {error}"));
                }
            }
            ["kill", number] if number.parse::<u16>().is_ok() => self.kill(number.parse().unwrap_or_default()),
            _ => self.console.line(&format!("unknown command {line:?}: expected add, kill N or quit")),
        }
        true
    }
}

/// Standard output, written in the background: sub-processes share it, and it may block.
#[derive(Debug, Clone)]
struct ConsoleWriter(BackgroundWriter);

impl ConsoleWriter {
    fn start() -> Result<Self, StartError> {
        let writer = BackgroundWriter::start("console", |lines| {
            // A closed standard output does not stop the pods.
            _ = std::io::stdout().write_all(lines.as_bytes());
        });
        Ok(Self(writer.map_err(SystemError::of("cannot start a thread for standard output"))?))
    }

    fn line(&self, line: &str) {
        self.0.push(format!("{}\n", Escaped(line)).into());
    }
}

/// Reports every change of a pod's state.
async fn report_changes(number: u16, watch: PodWatch, events_tx: mpsc::Sender<String>) {
    let PodWatch { membership: _, mut lifecycle, mut leader } = watch;
    let mut last = String::new();
    loop {
        let line = {
            let (process, leader) = (lifecycle.borrow_and_update(), leader.borrow_and_update());
            let (status, stopped) = (leader.status(std::time::Instant::now()), process.status());
            let [status, stopped] =
                [status, stopped].map(|text| if text.is_empty() { text } else { format!(", {text}") });
            let pid = process.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            format!("pod {number}: {}, {}{pid}{status}{stopped}", leader.role, process.process)
        };
        if line != last {
            if events_tx.send(line.clone()).await.is_err() {
                return;
            }
            last = line;
        }
        let changed = tokio::select! {
            changed = lifecycle.changed() => changed,
            changed = leader.changed() => changed,
        };
        if changed.is_err() {
            // The pod is stopping, which its task reports.
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_an_address_of_its_own() {
        let text = |number| address(number).map(|address| address.to_string()).unwrap_or_default();
        let ends = [1, 250, 251, MAX_PODS, MAX_PODS + 1].map(text);
        assert_eq!(ends, ["127.0.0.2", "127.0.0.251", "127.0.1.2", "127.0.7.251", ""]);
        let all: std::collections::BTreeSet<_> = (1..=MAX_PODS).map(address).collect();
        assert_eq!(all.len(), usize::from(MAX_PODS));
    }
}
