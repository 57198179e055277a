//! Which redis is the primary. The view names one. Where its redis is not a primary, or is not the only one, the servers decide:
//! a redis that was started does not drop its data for one that has none.

use std::{
    cmp::Reverse,
    io::ErrorKind,
    time::{Duration, Instant},
};

use ochopod_sdk::{Cluster, Error, Pod, Result, bail, info, warning};

use crate::{
    Role,
    client::{Address, Client, Info},
    server,
};

/// Time limit of each query of the redis of another pod, and of all of them: they fit into the deadline of `ready`.
const PEER_TIMEOUT: Duration = Duration::from_millis(300);
const PEERS_TIMEOUT: Duration = Duration::from_millis(700);
/// Role that the pod of a primary publishes.
pub(crate) const PRIMARY: &str = "primary";

/// A pod of the view, and the address at which the others reach its redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) seq: u64,
    pub(crate) address: Address,
}

impl Peer {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self { seq: pod.seq, address: server::reachable(pod) }
    }
}

/// A pod that has published the role of the primary, and the address at which this pod reaches its redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) peer: Peer,
    address: Address,
}

/// The pod that the others replicate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) primary: Pod,
    /// Claims to decide again, because not all of their servers have answered; empty if that is not necessary.
    pub(crate) open: Vec<Claim>,
}

/// Answer to the question which of several claimants took over last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The operator has not granted the network.
    Denied,
    /// It has this number, unless none of those that answered is a primary.
    Last {
        seq: Option<u64>,
        /// Whether all have answered: each pod decides the same then.
        is_final: bool,
    },
}

/// Returns the pod that the others replicate: the one that has published this role, else the oldest. If several have, because
/// one of them was out of the view, the one that took over last. Without the network, it is the oldest of them, for each pod.
pub(crate) fn primary(cluster: &Cluster) -> Result<Choice> {
    let mut pods: Vec<Pod> = cluster.by_seq().into_iter().filter(|pod| pod.role == PRIMARY).collect();
    let mut open = Vec::new();
    if pods.len() > 1 {
        let me = cluster.key();
        let address = |pod: &Pod| if pod.key == me { server::own(pod) } else { server::reachable(pod) };
        let claims: Vec<_> = pods.iter().map(|pod| Claim { peer: Peer::of(pod), address: address(pod) }).collect();
        match decide(&claims) {
            Decision::Denied => pods.truncate(1),
            Decision::Last { seq, is_final } => {
                pods.retain(|pod| seq.is_none_or(|seq| pod.seq == seq));
                open = if is_final { open } else { claims };
            }
        }
    }
    let primary = pods.pop().or_else(|| cluster.oldest()).map_or_else(|| cluster.me(), Ok)?;
    Ok(Choice { primary, open })
}

/// Queries the redis servers of claimants.
pub(crate) fn decide(claims: &[Claim]) -> Decision {
    let queries = Queries::new();
    let (mut primaries, mut is_final) = (Vec::new(), true);
    for claim in claims {
        match queries.query(&claim.address) {
            Answer::Info(info) if info.is_primary() => primaries.push((claim.peer.clone(), *info)),
            Answer::Info(_) | Answer::NotListening => {}
            Answer::Denied => return Decision::Denied,
            Answer::Failed(error) => {
                warning!("no answer from redis of pod seq {}: {error}", claim.peer.seq);
                is_final = false;
            }
        }
    }
    Decision::Last { seq: last_promoted(primaries).map(|last| last.seq), is_final }
}

/// Returns the primary that took over last: not one whose data another one has continued, then the one with the most replicas,
/// then the youngest.
fn last_promoted(mut primaries: Vec<(Peer, Info)>) -> Option<Peer> {
    let continued: Vec<String> = primaries.iter().map(|(_, info)| info.previous_id().to_owned()).collect();
    primaries.sort_by_key(|(peer, info)| {
        (!continued.iter().any(|id| id == info.replication_id()), info.connected_replicas(), peer.seq)
    });
    primaries.pop().map(|(peer, _)| peer)
}

/// Reply of the redis of another pod.
enum Answer {
    Info(Box<Info>),
    /// Nothing listens: it has no data in memory.
    NotListening,
    /// The operator has not granted the network.
    Denied,
    Failed(Error),
}

/// Queries of other pods within one time limit.
struct Queries {
    begin: Instant,
}

impl Queries {
    fn new() -> Self {
        Self { begin: Instant::now() }
    }

    fn connect(&self, address: &Address) -> Result<Client, Answer> {
        let timeout = PEER_TIMEOUT.min(PEERS_TIMEOUT.saturating_sub(self.begin.elapsed()));
        if timeout.is_zero() {
            return Err(Answer::Failed(Error::new("no time left for the query")));
        }
        Client::connect_within(address, timeout).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Answer::NotListening,
            ErrorKind::PermissionDenied => Answer::Denied,
            _ => Answer::Failed(error.into()),
        })
    }

    fn query(&self, address: &Address) -> Answer {
        match self.connect(address).map(|mut redis| redis.info()) {
            Ok(Ok(info)) => Answer::Info(Box::new(info)),
            Ok(Err(error)) => Answer::Failed(error),
            Err(answer) => answer,
        }
    }

    fn is_primary(&self, address: &Address) -> bool {
        matches!(self.query(address), Answer::Info(info) if info.is_primary())
    }

    fn promote(&self, peer: &Peer) -> Result<()> {
        match self.connect(&peer.address) {
            Ok(mut redis) => redis.call(&["REPLICAOF", "NO", "ONE"]).map(drop),
            Err(Answer::Failed(error)) => Err(error),
            Err(_) => bail!("redis of pod seq {} does not listen", peer.seq),
        }
    }
}

/// State of one pod's redis, and the other pods of its view.
pub(crate) struct Situation<'a> {
    pub(crate) me: &'a Peer,
    pub(crate) own: &'a Info,
    pub(crate) others: &'a [Peer],
    /// Whether it was just started: its data, if any, is of a file, and may be older than that of its replicas.
    pub(crate) is_new: bool,
}

impl Situation<'_> {
    /// Returns the role of the redis, if the view expects this one; none if it has to keep its data until the primary is
    /// one. An error if it cannot be decided yet.
    pub(crate) fn role(&self, expected: &Role) -> Result<Option<Role>> {
        match expected {
            Role::Primary if self.own.is_primary() => Ok(Some(Role::Primary)),
            Role::Primary => self.elect(None).map(Some),
            Role::ReplicaOf(primary) => self.follow(primary),
        }
    }

    /// Returns the role of a redis that follows this one, as far as that is a primary. If that one follows another, because
    /// it was started without data, that is the primary.
    fn follow(&self, primary: &Address) -> Result<Option<Role>> {
        let queries = Queries::new();
        let next = match queries.query(primary) {
            // A copy of nothing: the pod with the data was started later than others.
            Answer::Info(info) if info.is_primary() && self.is_new && info.is_empty() && !self.own.is_empty() => bail!(
                "data of redis kept, because the primary at {}:{} has none: stop that pod, or remove the data of this one",
                primary.ip,
                primary.port
            ),
            Answer::Info(info) if info.is_primary() => return Ok(Some(Role::ReplicaOf(primary.clone()))),
            Answer::Info(info) => info.primary(),
            Answer::Denied => return Ok(Some(Role::ReplicaOf(primary.clone()))),
            Answer::NotListening | Answer::Failed(_) => None,
        };
        match next {
            Some(next) if next == self.me.address && self.own.is_primary() => Ok(Some(Role::Primary)),
            // Each follows the other, and one of them has to be the primary.
            Some(next) if next == self.me.address => self.elect(Some(primary)).map(Some),
            Some(next) if self.others.iter().any(|peer| peer.address == next) && queries.is_primary(&next) => {
                Ok(Some(Role::ReplicaOf(next)))
            }
            _ if self.own.is_primary() => {
                warning!("redis stays a primary until that of the cluster at {}:{} is one", primary.ip, primary.port);
                Ok(None)
            }
            _ => Ok(Some(Role::ReplicaOf(primary.clone()))),
        }
    }

    /// Returns the role of a redis that should be the primary and is none. Another one stays the primary, or becomes it if it
    /// has data that this one lacks. With `rival`, which follows this one, the older pod wins if both have the same.
    fn elect(&self, rival: Option<&Address>) -> Result<Role> {
        let queries = Queries::new();
        let (mut primaries, mut ahead) = (Vec::new(), Vec::new());
        for peer in self.others {
            let info = match queries.query(&peer.address) {
                Answer::Info(info) => *info,
                Answer::NotListening => continue,
                Answer::Denied => {
                    warning!("data of other pods not checked before redis becomes the primary; requires --net peers");
                    return Ok(Role::Primary);
                }
                Answer::Failed(error) => bail!("no answer from redis of pod seq {}: {error}", peer.seq),
            };
            let wins_tie =
                || rival == Some(&peer.address) && peer.seq < self.me.seq && !self.own.is_ahead_of(&info, self.is_new);
            if info.is_loading() {
                bail!("redis of pod seq {} loads its data", peer.seq);
            } else if info.is_primary() {
                primaries.push((peer.clone(), info));
            } else if info.is_ahead_of(self.own, self.is_new) || wins_tie() {
                ahead.push((Reverse(info.offset()), peer.seq, peer));
            }
        }
        if let Some(primary) = last_promoted(primaries) {
            return Ok(Role::ReplicaOf(primary.address));
        }
        let Some((_, seq, best)) = ahead.into_iter().min_by_key(|(offset, seq, _)| (*offset, *seq)) else {
            return Ok(Role::Primary);
        };
        info!("redis of pod seq {seq} has data that this one lacks, making it the primary");
        queries.promote(best)?;
        Ok(Role::ReplicaOf(best.address.clone()))
    }
}
