//! `ochopod up`: several pods of one cluster in this process, for development.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::FileTypeExt as _,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    error::StartError,
    house::{House, look},
    pod::{Pod, PodWatch, Stop},
};
use crate::{
    cli::Up,
    coord::{Embedded, Ensemble},
    init::{Ending, Signal, Terminations},
    settings::{Env, Given, Settings},
    telemetry::{Drain, Log},
};

/// The first pod is at 127.0.0.2, the next one at 127.0.0.3…
const FIRST: u8 = 2;
/// Lines that wait to be shown.
const QUEUE: usize = 256;
/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

const COMMANDS: &str = "add, kill N, quit";

pub(super) async fn up(up: Up, env: &Env) -> Result<Ending, StartError> {
    let terminations =
        Terminations::listen().map_err(|source| StartError::System { what: "cannot handle signals", source })?;
    let machine = tokio::select! {
        machine = look(env, &up.settings) => machine?,
        () = terminations.requested().cancelled() => return Ok(Ending::Stopped),
    };
    let given = Given { env, flags: &up.settings, grants: &up.grants, machine: &machine };
    let (settings, zk) = Settings::read_shared(given).map_err(StartError::Settings)?;
    let embedded = Embedded::new(settings.session);
    let ensemble = match zk {
        Some(address) => Ensemble::ZooKeeper { address, timeout: settings.session },
        None => Ensemble::Embedded(embedded.clone()),
    };
    let log = Log::start(settings.log_level, settings.log_format, settings.log.as_ref()).map_err(StartError::Log)?;
    for exposure in settings.exposures() {
        tracing::warn!("{exposure}");
    }
    let house = tokio::select! {
        house = House::open(&settings, &up.plugin, ensemble, log) => house?,
        () = terminations.requested().cancelled() => return Ok(Ending::Stopped),
    };
    let stop = Stop { requested: terminations.requested().clone(), forced: terminations.forced().clone() };
    let shown = Shown::start()?;
    let mut street = Street::new(&house, settings, embedded, stop.clone(), shown.clone());
    for _ in 0..up.pods {
        street.add().await?;
    }
    shown.line(&format!("commands: {COMMANDS}"));
    let mut input = Input::open();
    loop {
        tokio::select! {
            () = stop.requested.cancelled() => break,
            line = street.events.recv() => shown.line(&line.unwrap_or_default()),
            Some(_) = street.pods.join_next() => {}
            line = input.next() => match line {
                Some(line) if street.obey(&line).await => {}
                _ => break,
            },
        }
    }
    stop.requested.cancel();
    while !street.pods.is_empty() {
        tokio::select! {
            biased;
            line = street.events.recv() => shown.line(&line.unwrap_or_default()),
            _ = street.pods.join_next() => {}
        }
    }
    while let Ok(line) = street.events.try_recv() {
        shown.line(&line);
    }
    shown.line("all pods left");
    house.close(&stop).await;
    shown.0.flush(LAST_LINES);
    Ok(Ending::Stopped)
}

/// Lines of standard input, when somebody may type there.
struct Input(Option<Lines<BufReader<Stdin>>>);

impl Input {
    /// Nobody types into `/dev/null`: its end is not the end of the input, which quits.
    fn open() -> Self {
        let device = std::fs::metadata("/dev/stdin").is_ok_and(|input| input.file_type().is_char_device());
        let nobody = device && !std::io::stdin().is_terminal();
        Self((!nobody).then(|| BufReader::new(tokio::io::stdin()).lines()))
    }

    /// The next line; none at the end of the input.
    async fn next(&mut self) -> Option<String> {
        match &mut self.0 {
            Some(lines) => lines.next_line().await.ok().flatten(),
            None => std::future::pending().await,
        }
    }
}

/// The pods of this process.
struct Street<'a> {
    house: &'a House,
    settings: Settings,
    embedded: Embedded,
    stop: Stop,
    shown: Shown,
    /// Pods that run, and those who tell of them.
    pods: JoinSet<()>,
    known: BTreeMap<u8, (AbortHandle, PodWatch)>,
    added: u8,
    tell: mpsc::Sender<String>,
    events: mpsc::Receiver<String>,
}

impl<'a> Street<'a> {
    fn new(house: &'a House, settings: Settings, embedded: Embedded, stop: Stop, shown: Shown) -> Self {
        let (tell, events) = mpsc::channel(QUEUE);
        let (pods, known) = (JoinSet::new(), BTreeMap::new());
        Self { house, settings, embedded, stop, shown, pods, known, added: 0, tell, events }
    }

    /// One more pod, at the next address.
    async fn add(&mut self) -> Result<(), StartError> {
        let number = self.added + 1;
        let last = FIRST.checked_add(self.added).ok_or(StartError::Address(usize::from(number)))?;
        let settings = self.settings.at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let listen = settings.listen;
        let pod = Pod::build(self.house, settings, None).await?;
        self.added = number;
        self.shown.line(&format!("pod {number}: listening on {listen}"));
        let watch = pod.watch.clone();
        let tell = self.tell.clone();
        let (stop, telling) = (self.stop.clone(), watch.clone());
        let span = tracing::info_span!("pod", pod = number);
        let run = async move {
            tokio::select! {
                _ = pod.run(stop) => {
                    // Nobody listens any more when all pods leave.
                    _ = tell.send(format!("pod {number}: left")).await;
                }
                () = narrate(number, telling, tell.clone()) => {}
            }
        };
        let abort = self.pods.spawn(tracing::Instrument::instrument(run, span));
        self.known.insert(number, (abort, watch));
        Ok(())
    }

    /// Ends a pod as a crash of its machine would: nothing is left of it but its session, which expires. (In a real
    /// ZooKeeper it is closed: the client does so when it is dropped.)
    fn kill(&mut self, number: u8) {
        let Some((abort, watch)) = self.known.remove(&number) else {
            self.shown.line(&format!("there is no pod {number}"));
            return;
        };
        let pid = watch.lifecycle.borrow().pid;
        let session = watch.membership.borrow().session;
        abort.abort();
        if let Some(pid) = pid {
            self.house.init.signal_group(pid, Signal::SIGKILL);
        }
        if let Some(session) = session {
            self.embedded.expire(session);
        }
        self.shown.line(&format!("pod {number}: killed"));
    }

    /// Carries out a line of standard input. False when it was to quit.
    async fn obey(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["quit"] => return false,
            ["add"] => {
                if let Err(error) = self.add().await {
                    self.shown.line(&format!("cannot add a pod: {error}"));
                }
            }
            ["kill", number] if number.parse::<u8>().is_ok() => self.kill(number.parse().unwrap_or_default()),
            _ => self.shown.line(&format!("{line:?} is no command, expected one of: {COMMANDS}")),
        }
        true
    }
}

/// Standard output, for which nobody waits: it is the sub-processes' too, and may be full.
#[derive(Debug, Clone)]
struct Shown(Drain);

impl Shown {
    fn start() -> Result<Self, StartError> {
        let drain = Drain::start("console", |lines| {
            // Nobody looks when standard output is closed; the pods go on.
            _ = std::io::stdout().write_all(lines.as_bytes());
        });
        drain
            .map(Self)
            .map_err(|source| StartError::System { what: "cannot start a thread for standard output", source })
    }

    fn line(&self, line: &str) {
        self.0.push(format!("{line}\n").into());
    }
}

/// Tells every change of a pod's state.
async fn narrate(number: u8, watch: PodWatch, tell: mpsc::Sender<String>) {
    let PodWatch { membership: _, mut lifecycle, mut leader } = watch;
    let mut last = String::new();
    loop {
        let line = {
            let (process, leader) = (lifecycle.borrow_and_update(), leader.borrow_and_update());
            let status = leader.status(std::time::Instant::now());
            let status = if status.is_empty() { status } else { format!(", {status}") };
            let pid = process.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            format!("pod {number}: {}, {}{pid}{status}", leader.role, process.process)
        };
        if line != last {
            if tell.send(line.clone()).await.is_err() {
                return;
            }
            last = line;
        }
        let changed = tokio::select! {
            changed = lifecycle.changed() => changed,
            changed = leader.changed() => changed,
        };
        if changed.is_err() {
            // The pod is on its way out; its run tells.
            return std::future::pending().await;
        }
    }
}
