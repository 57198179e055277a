//! An ensemble as ZooKeeper writes it down: its servers, one a line, and the version of the configuration.

use std::fmt::Write;

use ochopod_sdk::{Result, bail};

/// A server of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    /// `IP:PORT` for the leader's followers. Identifies the pod.
    pub(crate) quorum: String,
    election_port: u16,
    pub(crate) is_voter: bool,
    /// `IP:PORT` that clients connect to, as the server binds it.
    client: String,
}

/// The servers of an ensemble.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ensemble {
    /// Of the configuration, hexadecimal; `0` before the first one.
    pub(crate) version: String,
    pub(crate) servers: Vec<Listed>,
}

impl Listed {
    pub(crate) fn new(id: u64, quorum: String, election_port: u16, client: String) -> Self {
        Self { id, quorum, election_port, is_voter: true, client }
    }

    /// Returns `IP:PORT` under which clients reach it.
    pub(crate) fn client(&self) -> String {
        let (ip, _) = self.quorum.rsplit_once(':').unwrap_or_default();
        let (_, port) = self.client.rsplit_once(':').unwrap_or_default();
        format!("{ip}:{port}")
    }

    /// Returns its line without the end.
    pub(crate) fn line(&self) -> String {
        let Self { id, quorum, election_port, is_voter, client } = self;
        let kind = if *is_voter { "participant" } else { "observer" };
        format!("server.{id}={quorum}:{election_port}:{kind};{client}")
    }

    /// Parses `server.ID=IP:QUORUM:ELECTION[:KIND];IP:CLIENT`.
    fn parse(line: &str) -> Option<Self> {
        let (id, address) = line.trim().strip_prefix("server.")?.split_once('=')?;
        let (peer, client) = address.split_once(';')?;
        let (peer, is_voter) = match peer.rsplit_once(':')? {
            (peer, "participant") => (peer, true),
            (peer, "observer") => (peer, false),
            _ => (peer, true),
        };
        let (quorum, election) = peer.rsplit_once(':')?;
        let client = if client.contains(':') { client.to_owned() } else { format!("0.0.0.0:{client}") };
        let election_port = election.parse().ok()?;
        Some(Self { id: id.parse().ok()?, quorum: quorum.to_owned(), election_port, is_voter, client })
    }
}

impl Ensemble {
    /// Parses the text of `/zookeeper/config`, or of a file whose version is in its name.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut ensemble = Self { version: "0".to_owned(), servers: Vec::new() };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(version) = line.strip_prefix("version=") {
                version.trim().clone_into(&mut ensemble.version);
            } else if let Some(server) = Listed::parse(line) {
                ensemble.servers.push(server);
            } else {
                bail!("ensemble has the line {line:?}, expected server.ID=IP:PORT:PORT:participant;IP:PORT");
            }
        }
        Ok(ensemble)
    }

    /// Returns the lines of all servers.
    pub(crate) fn text(&self) -> String {
        self.servers.iter().fold(String::new(), |mut text, server| {
            _ = writeln!(text, "{}", server.line());
            text
        })
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = &Listed> {
        self.servers.iter().filter(|server| server.is_voter)
    }

    /// Returns the number of voters that are a quorum.
    pub(crate) fn quorum(&self) -> usize {
        quorum(self.voters().count())
    }

    /// Returns the version as a number, which each change increases.
    pub(crate) fn number(&self) -> u64 {
        u64::from_str_radix(&self.version, 16).unwrap_or_default()
    }

    /// Returns whether this is the same ensemble as an earlier one, unchanged or after changes of one server at a time: an
    /// ensemble that other servers have formed is not newer, or has none of the earlier ones under its id and address.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        let is_kept = |server: &Listed| earlier.at(&server.quorum).is_some_and(|old| old.id == server.id);
        if self.number() == earlier.number() {
            return self.servers.len() == earlier.servers.len() && self.servers.iter().all(is_kept);
        }
        self.number() > earlier.number() && self.servers.iter().any(is_kept)
    }

    /// Returns the server at this address.
    pub(crate) fn at(&self, quorum: &str) -> Option<&Listed> {
        self.servers.iter().find(|server| server.quorum == quorum)
    }
}

/// Returns the number that is a quorum of so many voters.
pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ensemble_is_read_as_zookeeper_writes_it() {
        let text = "server.1=127.0.0.2:2888:3888:participant;127.0.0.2:2181\nserver.2=10.0.0.3:2888:3888:observer;0.0.0.0:2182\n\
                    server.9=[fd00::1]:2888:3888;2181\nversion=100000003";
        let ensemble = Ensemble::parse(text).unwrap();
        assert_eq!((ensemble.version.as_str(), ensemble.servers.len(), ensemble.voters().count()), ("100000003", 3, 2));
        let clients: Vec<String> = ensemble.servers.iter().map(Listed::client).collect();
        assert_eq!(clients, ["127.0.0.2:2181", "10.0.0.3:2182", "[fd00::1]:2181"]);
        assert_eq!(ensemble.at("[fd00::1]:2888").unwrap().id, 9);
        assert_eq!(Ensemble::parse(&ensemble.text()).unwrap().servers, ensemble.servers);
    }

    #[test]
    fn what_is_no_server_is_an_error() {
        for bad in ["server.1", "server.x=a:1:2;3", "server.1=a:1:2", "server.1=a:b:c;d", "<html>"] {
            assert!(Ensemble::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ensemble_continues_an_earlier_one_if_it_is_newer_and_has_one_of_its_servers() {
        let ensemble = |version: &str, ids: &[u64]| {
            let listed =
                |id: &u64| Listed::new(*id, format!("10.0.0.{}:2888", id % 10), 3888, "0.0.0.0:2181".to_owned());
            Ensemble { version: version.to_owned(), servers: ids.iter().map(listed).collect() }
        };
        let earlier = ensemble("900000005", &[1, 2, 3]);
        assert!(earlier.continues(&earlier));
        assert!(ensemble("a00000001", &[3, 4, 5]).continues(&earlier));
        assert!(!ensemble("100000000", &[1, 2, 3]).continues(&earlier), "it is older");
        assert!(!ensemble("900000005", &[1, 2]).continues(&earlier), "the version is the same, the servers are not");
        assert!(!ensemble("a00000001", &[11, 12, 13]).continues(&earlier), "the addresses have other ids");
        assert!(!ensemble("a00000001", &[1]).continues(&Ensemble::default()));
    }

    #[test]
    fn quorum_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(quorum), [1, 2, 2, 3, 3]);
    }
}
