//! How a pod starts its etcd, and which views it accepts.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ochopod_sdk::{Cluster, Command, Pod, Result, bail, info};

use crate::{
    ctl::{self, Members, quorum},
    member::{Files, LastSeen, Member},
    peer::{self, Listed, ServerState},
    survey::{Survey, gone, is_healthy, removable},
};

/// Number of pods that form a cluster, unless the operator sets `ochopod_etcd_size`.
const SIZE: usize = 3;
/// Mark between the name of a member and its formation. The members that form a cluster list these names.
const FORMATION_MARK: char = '@';
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of each question before a stop: with all members of a cluster that stops, there is no quorum to wait for.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Times within the deadline of `ready`.
const OWN_TIMEOUT: Duration = Duration::from_millis(250);
const PEERS_TIMEOUT: Duration = Duration::from_millis(400);
const HEALTH_TIMEOUT: Duration = Duration::from_millis(500);

/// Returns an error for a view that this pod must not be configured with.
pub(crate) fn check(cluster: &Cluster, files: impl Fn(&Member) -> Files) -> Result<()> {
    let pod = &cluster.me()?;
    directory(pod)?;
    let size = size(pod)?;
    let (live, me) = (Member::of_all(cluster), Member::of(pod)?);
    let files = files(&me);
    if !files.is_granted() {
        bail!("directory not granted: requires --dir {}::{}", directory(pod)?, crate::member::DIRECTORY);
    }
    let last_seen = files.last_seen().filter(|_| files.has_data());
    let in_view = |url: &str| live.iter().any(|(_, member)| member.peer_url() == url);
    match Survey::of(live.iter().map(|(_, member)| member))? {
        Survey::Nothing => {
            let Some(seen) = last_seen else {
                if !files.has_data() && live.len() < size {
                    bail!("{} of {size} pods to form a cluster (ochopod_etcd_size)", live.len());
                }
                return Ok(());
            };
            let present = seen.members.iter().filter(|url| in_view(url)).count();
            let (known, needed) = (seen.members.len(), quorum(seen.members.len()));
            if present < needed {
                bail!("{present} of {known} members are registered, {needed} are a quorum");
            }
            // Pods without data cannot know of the cluster while no member runs: they would form another one.
            let strangers = live.iter().filter(|(_, member)| !seen.members.contains(&member.peer_url()));
            let strangers: Vec<String> =
                strangers.map(|(pod, member)| format!("seq {} at {}", pod.seq, member.peer)).collect();
            if !strangers.is_empty() {
                bail!(
                    "no member runs, and other pods could form a second cluster: cordon {} until the {known} members \
                     are healthy",
                    strangers.join(", ")
                );
            }
        }
        // A pod with data of another cluster accepts too: its member then runs, and the others see that a cluster exists.
        Survey::Forming(_) => {}
        Survey::NoQuorum(members) => {
            check_quorum(&members.list, in_view)?;
            if !files.has_data() {
                bail!("cluster has no quorum, and this pod has no data of it");
            }
        }
        Survey::Healthy { members, .. } => {
            check_quorum(&members.list, in_view)?;
            check_data(last_seen.as_ref(), &members)?;
        }
    }
    Ok(())
}

/// Returns an error if the data of this pod belongs to another cluster than that of the other pods.
fn check_data(last_seen: Option<&LastSeen>, members: &Members) -> Result<()> {
    match last_seen {
        Some(seen) if seen.cluster != members.cluster => {
            bail!(
                "data of this pod belongs to cluster {}, the other pods form cluster {}",
                seen.cluster,
                members.cluster
            )
        }
        _ => Ok(()),
    }
}

/// Returns an error for a view without a quorum of the members, which may be one side of a partition: the others must
/// keep running.
fn check_quorum(members: &[Listed], in_view: impl Fn(&str) -> bool) -> Result<()> {
    let present = members.iter().filter(|member| member.peer_urls.iter().any(|url| in_view(url))).count();
    let needed = quorum(members.len());
    if present < needed {
        bail!("view has {present} of {} members, {needed} are a quorum", members.len());
    }
    Ok(())
}

/// Returns the command of a pod. Adds it to a cluster that runs, and puts data aside that the cluster does not know.
pub(crate) fn command(cluster: &Cluster, files: impl Fn(&Member) -> Files) -> Result<Command> {
    let pod = &cluster.me()?;
    let me = Member::of(pod)?;
    let files = files(&me);
    let live = Member::of_all(cluster);
    let survey = match Survey::of(live.iter().map(|(_, member)| member).filter(|other| **other != me)) {
        // A member must not stay down because another one is slow.
        Err(_) if files.has_data() => Survey::Nothing,
        survey => survey?,
    };
    if let Survey::Forming(members) | Survey::Healthy { members, .. } = &survey
        && is_abandoned(&files, members.find(&me.peer_url()))
    {
        files.set_aside()?;
    }
    let start = match survey {
        // Its cluster id differs from that of a cluster that others form, so that it does not take part in that.
        Survey::Nothing | Survey::Forming(_) | Survey::NoQuorum(_) if files.has_data() => Start::with_data(&me, &files),
        Survey::Nothing => {
            let size = size(pod)?;
            if live.len() < size {
                bail!("{} of {size} pods to form a cluster (ochopod_etcd_size)", live.len());
            }
            info!("forming a cluster of {} members", live.len());
            let formation = live.first().map(|(pod, _)| formation_of(pod)).unwrap_or_default();
            let name = |member: &Member| format!("{}{FORMATION_MARK}{formation}", member.name);
            Start::new(&me, &files, live.iter().map(|(_, member)| (name(member), member.peer_url())))?
        }
        Survey::Forming(members) if members.find(&me.peer_url()).is_some() => {
            Start::new(&me, &files, members.list.iter().flat_map(named))?
        }
        Survey::Forming(members) => {
            bail!("the first {} members form the cluster", members.list.len());
        }
        Survey::NoQuorum(members) => {
            bail!("cluster of {} members has no quorum, cannot add this pod", members.list.len());
        }
        Survey::Healthy { members, healthy } => {
            check_data(files.last_seen().filter(|_| files.has_data()).as_ref(), &members)?;
            let pods: Vec<String> = live.iter().map(|(_, member)| member.peer_url()).collect();
            join(&me, &files, members, &healthy, &pods)?
        }
    };
    start.command(pod, &me, cluster)
}

/// Returns the text that tells a formation from earlier ones, from the oldest of its pods: all pods of a view compute the same.
/// Ids of a cluster and its members follow from it, so that they never equal those of an earlier cluster of the same pods.
fn formation_of(oldest: &Pod) -> String {
    let word = oldest.key.split('-').next().unwrap_or_default();
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{}-{word}", oldest.seq)
}

/// Returns the formation in the name of a member; none for a member that joined later.
fn formation_in(name: &str) -> Option<&str> {
    Some(name.split_once(FORMATION_MARK)?.1)
}

/// Returns whether the data of this pod is of a formation that never had a quorum, while the other pods list it in another.
fn is_abandoned(files: &Files, listed: Option<&Listed>) -> bool {
    let own = files.formation();
    own.is_some() && listed.is_some_and(|listed| formation_in(&listed.name) != own.as_deref())
}

/// Adds this pod to a cluster that has a quorum, as far as it is not a member yet. `pods` are the URLs of the live pods.
fn join(
    me: &Member,
    files: &Files,
    mut members: Members,
    healthy: &BTreeSet<String>,
    pods: &[String],
) -> Result<Start> {
    let peer_url = me.peer_url();
    let endpoints = &healthy.iter().cloned().collect::<Vec<_>>();
    if !files.has_data() {
        files.forget_formation()?;
    }
    match members.find(&peer_url) {
        Some(_) if files.has_data() => return Ok(Start::with_data(me, files)),
        // Added earlier or one of the first members, and never started: a member publishes its URLs when it starts.
        Some(listed) if listed.client_urls.is_empty() => return Ok(Start::existing(&members, me)),
        Some(lost) => {
            info!("data of this member is lost, replacing it");
            changed(ctl::remove(endpoints, lost.id, CHANGE_TIMEOUT))?;
        }
        None => files.set_aside()?,
    }
    // etcd adds no member while another one does not answer. The leader removes that one after a configuration only, which
    // waits for this pod.
    while let Some(gone) = removable(&members, healthy, pods)? {
        info!("removing member {} before this pod joins: its pod left the view", gone.address());
        let id = gone.id;
        changed(ctl::remove(endpoints, id, CHANGE_TIMEOUT))?;
        members.list.retain(|member| member.id != id);
    }
    info!("adding {peer_url} to {} members", members.list.len());
    changed(ctl::add(endpoints, &me.name, &peer_url, CHANGE_TIMEOUT))?;
    Ok(Start::existing(&ctl::members(endpoints, CHANGE_TIMEOUT)?, me))
}

/// Returns the result of a change. etcd rejects one while its quorum is at risk, and for some seconds after another
/// change.
fn changed(result: Result<()>) -> Result<()> {
    result.or_else(|error| bail!("members not changed: {error}"))
}

/// How etcd finds the other members at its start.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    state: &'static str,
    /// Name of this member.
    name: String,
    /// Names and URLs.
    members: Vec<(String, String)>,
}

impl Start {
    /// Its data knows the members.
    fn with_data(me: &Member, files: &Files) -> Self {
        let formation = files.formation().map(|formation| format!("{FORMATION_MARK}{formation}"));
        let name = format!("{}{}", me.name, formation.unwrap_or_default());
        Self { state: "existing", members: vec![(name.clone(), me.peer_url())], name }
    }

    /// Forms a cluster with these members, one of which is this one, and records the formation.
    fn new(me: &Member, files: &Files, members: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort();
        let own = members.iter().find(|(_, url)| *url == me.peer_url());
        let name = own.map_or_else(|| me.name.clone(), |(name, _)| name.clone());
        if let Some(formation) = formation_in(&name) {
            files.set_formation(formation)?;
        }
        Ok(Self { state: "new", name, members })
    }

    fn existing(members: &Members, me: &Member) -> Self {
        let own = members.list.iter().filter(|member| member.is_at(&me.peer_url()));
        let own = own.map(|_| (me.name.clone(), me.peer_url()));
        let others = members.list.iter().filter(|member| !member.is_at(&me.peer_url()));
        // Members that were added and not started yet have no name: any name but that of the pod will do.
        let others = others.flat_map(|member| {
            let name = if member.name.is_empty() { format!("unnamed-{:x}", member.id) } else { member.name.clone() };
            named(&Listed { name, ..member.clone() })
        });
        let mut members: Vec<_> = own.chain(others).collect();
        members.sort();
        Self { state: "existing", name: me.name.clone(), members }
    }

    fn command(self, pod: &Pod, me: &Member, cluster: &Cluster) -> Result<Command> {
        let (listen_clients, listen_peers) = me.listen_urls();
        let members = self.members.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>();
        let formation = formation_in(&self.name).map(|formation| format!(".{formation}")).unwrap_or_default();
        let token = format!("{}.{}{formation}", cluster.namespace(), cluster.name());
        let pairs = [
            ("--name", self.name),
            ("--data-dir", format!("{}/{}", directory(pod)?.trim_end_matches('/'), me.name)),
            ("--listen-client-urls", listen_clients),
            ("--advertise-client-urls", me.client_url()),
            ("--listen-peer-urls", listen_peers),
            ("--initial-advertise-peer-urls", me.peer_url()),
            ("--initial-cluster-token", token),
            ("--initial-cluster-state", self.state.to_owned()),
            ("--initial-cluster", members.join(",")),
        ];
        Ok(Command::new("etcd").args(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value])))
    }
}

/// Returns the name of a member with each of its URLs.
fn named(member: &Listed) -> Vec<(String, String)> {
    member.peer_urls.iter().map(|url| (member.name.clone(), url.clone())).collect()
}

/// Returns an error while the pod's etcd is not a working member of the cluster.
pub(crate) fn check_ready(cluster: &Cluster) -> Result<()> {
    let me = Member::of(&cluster.me()?)?;
    let members = peer::members(&me.own_peer, OWN_TIMEOUT)?;
    // Those that refuse connections are started later: without them there is no quorum, so listening has to do.
    let begin = Instant::now();
    let left = || PEERS_TIMEOUT.saturating_sub(begin.elapsed());
    let is_up = |pod: &Pod, other: &Member| {
        if left().is_zero() {
            return true;
        }
        match peer::query(&other.peer, left()) {
            Ok(ServerState::NotListening) => pod.started,
            // One that lost its data forms another cluster, and adds nothing to the quorum of this one.
            Ok(ServerState::Forming) => {
                !peer::members(&other.peer, left()).is_ok_and(|known| known.cluster != members.cluster)
            }
            _ => true,
        }
    };
    let others = Member::of_all(cluster).into_iter().filter(|(_, other)| *other != me);
    let others = others.filter(|(_, other)| members.find(&other.peer_url()).is_some());
    let up = 1 + others.filter(|(pod, other)| is_up(pod, other)).count();
    if up < members.quorum() {
        info!("listening, {up} of {} members were started", members.list.len());
        return Ok(());
    }
    ctl::check_health(&me.client_url(), HEALTH_TIMEOUT)
}

/// Removes members that do not answer and whose pods are gone, if stopping this one would cost the quorum otherwise. Without
/// this, a configuration with `strict` could stop a member too many.
pub(crate) fn prepare_stop(me: &Member, files: &Files) -> Result<()> {
    let Some(registered) = files.registered() else { return Ok(()) };
    while let Some(Survey::Healthy { members, healthy }) = Survey::healthy(&[me.client_url()], STOP_TIMEOUT)? {
        let left = members.list.iter().filter(|member| is_healthy(member, &healthy)).count().saturating_sub(1);
        match gone(&members, &healthy, &registered).next() {
            Some(gone) if left < members.quorum() => {
                info!("removing member {} before this one stops: its pod is gone", gone.address());
                ctl::remove(&[me.client_url()], gone.id, CHANGE_TIMEOUT)?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Returns the directory for the data, as etcd sees it.
fn directory(pod: &Pod) -> Result<&str> {
    match pod.settings.get("etcd_dir").map(String::as_str) {
        Some(directory) if directory.starts_with('/') => Ok(directory),
        Some(other) => bail!("invalid ochopod_etcd_dir {other:?}: expected an absolute path"),
        None => bail!("ochopod_etcd_dir is not set: expected the directory for the data, as in /var/lib/etcd"),
    }
}

fn size(pod: &Pod) -> Result<usize> {
    match pod.settings.get("etcd_size") {
        None => Ok(SIZE),
        Some(text) => match text.trim().parse() {
            Ok(size) if size > 0 => Ok(size),
            _ => bail!("invalid ochopod_etcd_size {text:?}: expected a number of pods"),
        },
    }
}
