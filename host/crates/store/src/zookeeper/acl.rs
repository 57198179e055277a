//! ACLs that nodes are created with, and ACLs that are not strict enough: pure.

use std::sync::{Arc, LazyLock};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use zookeeper_client::{Acl, Acls, AuthId, AuthUser, Permission};

use super::{Exposure, NodeAccess, ZooKeeperAddress};

/// Shared parents: the creator has all permissions; any other client only lists the node and creates children.
static OPEN: LazyLock<[Acl; 2]> = LazyLock::new(|| creator_and_world(Permission::READ | Permission::CREATE));
static READABLE: LazyLock<[Acl; 2]> = LazyLock::new(|| creator_and_world(Permission::READ));

/// Schemes that identify no particular user.
const ANONYMOUS_SCHEMES: [&str; 2] = ["world", "ip"];
/// Placeholder that a server returns instead of a digest to clients that may not change the ACL.
const MASKED_DIGEST: &str = "x";

fn creator_and_world(permission: Permission) -> [Acl; 2] {
    [Acl::new(Permission::ALL, AuthId::authed()), Acl::new(permission, AuthId::anyone())]
}

/// ACLs that a session creates nodes with, and accepts on existing nodes.
#[derive(Debug, Clone)]
pub(super) struct AclPolicy {
    address: Arc<ZooKeeperAddress>,
    /// The user's own ids in ACLs: plain and masked.
    own: Option<[String; 2]>,
}

impl AclPolicy {
    pub(super) fn new(address: &ZooKeeperAddress) -> Self {
        Self { own: address.credentials().map(ids), address: Arc::new(address.clone()) }
    }

    /// Returns the address of the ensemble.
    pub(super) fn address(&self) -> &ZooKeeperAddress {
        &self.address
    }

    /// Returns whether ACLs that let other clients change a node are rejected.
    pub(super) fn is_strict(&self) -> bool {
        self.address.is_strict()
    }

    /// Returns whether there are credentials, without which nothing can be protected.
    fn protects(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn of(&self, access: NodeAccess) -> Acls<'static> {
        match access {
            _ if !self.protects() => Acls::anyone_all(),
            NodeAccess::Open => Acls::new(&*OPEN),
            NodeAccess::Readable if self.address.is_world_readable() => Acls::new(&*READABLE),
            NodeAccess::Readable | NodeAccess::Cluster => Acls::creator_all(),
        }
    }

    /// Returns the permissions of any client, if they differ from those on a node created here. Without credentials nothing is
    /// expected; shared parents belong to their creator.
    pub(super) fn acl_mismatch(&self, list: &[Acl], access: NodeAccess) -> Option<String> {
        if !self.protects() || access == NodeAccess::Open {
            return None;
        }
        let (given, wanted) = (world_permission(list), world_permission(&self.of(access)));
        (given != wanted).then(|| given.to_string())
    }

    /// Returns the permissions of others that strict ACLs do not grant. A shared parent may belong to another user, who
    /// administers it; its children have their own ACLs. In the nodes of the cluster and of services no other client may even
    /// create children.
    ///
    /// `users` are the identities of the session in addition to its credentials, such as that of a certificate.
    pub(super) fn exposure(
        &self,
        path: &str,
        list: &[Acl],
        access: NodeAccess,
        users: &[AuthUser],
    ) -> Option<Exposure> {
        if !self.is_strict() {
            return None;
        }
        let change = Permission::WRITE | Permission::DELETE | Permission::ADMIN;
        let is_anonymous = |acl: &&Acl| ANONYMOUS_SCHEMES.contains(&acl.scheme());
        let found = match access {
            NodeAccess::Open => granted(list.iter().filter(is_anonymous)) & change,
            NodeAccess::Readable | NodeAccess::Cluster => {
                let others = list.iter().filter(|acl| is_anonymous(acl) || !self.is_own(acl, users));
                granted(others) & (change | Permission::CREATE)
            }
        };
        if found == Permission::NONE {
            return None;
        }
        let path = format!("{}{path}", self.address.chroot().unwrap_or_default());
        let expected: Vec<String> = self.of(access).iter().map(as_command_line).collect();
        Some(Exposure {
            finding: format!("{path} grants {found} to others"),
            repair: format!("setAcl {path} {}", expected.join(",")),
            servers: self.address.hosts(),
        })
    }

    fn is_own(&self, acl: &Acl, users: &[AuthUser]) -> bool {
        match acl.scheme() {
            "digest" => self.own.iter().flatten().any(|id| id == acl.id()),
            scheme => users.iter().any(|user| (user.scheme(), user.user()) == (scheme, acl.id())),
        }
    }
}

/// Returns the ids of `user:password` in ACLs.
fn ids(credentials: &str) -> [String; 2] {
    let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
    let hash = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, credentials.as_bytes()).as_ref());
    [format!("{user}:{hash}"), format!("{user}:{MASKED_DIGEST}")]
}

fn world_permission(list: &[Acl]) -> Permission {
    let anyone = AuthId::anyone();
    granted(list.iter().filter(|acl| *acl.auth_id() == anyone))
}

fn granted<'a>(list: impl Iterator<Item = &'a Acl>) -> Permission {
    list.map(Acl::permission).fold(Permission::NONE, |all, permission| all | permission)
}

/// Formats an entry of an ACL as `zkCli.sh` accepts it.
fn as_command_line(acl: &Acl) -> String {
    let letters = [
        (Permission::CREATE, 'c'),
        (Permission::DELETE, 'd'),
        (Permission::READ, 'r'),
        (Permission::WRITE, 'w'),
        (Permission::ADMIN, 'a'),
    ];
    let letters: String = letters.iter().filter(|(one, _)| acl.permission().has(*one)).map(|(_, c)| c).collect();
    format!("{}:{}:{letters}", acl.scheme(), acl.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(address: &str) -> AclPolicy {
        AclPolicy::new(&address.parse().unwrap())
    }

    fn readable(address: &str) -> AclPolicy {
        AclPolicy::new(&address.parse::<ZooKeeperAddress>().unwrap().world_readable())
    }

    fn entries_of(lists: &AclPolicy, access: NodeAccess) -> Vec<String> {
        let one = |acl: &Acl| format!("{}:{} {}", acl.scheme(), acl.id(), acl.permission());
        lists.of(access).iter().map(one).collect()
    }

    #[test]
    fn nodes_are_open_to_world_without_credentials() {
        for access in [NodeAccess::Open, NodeAccess::Readable, NodeAccess::Cluster] {
            assert_eq!(entries_of(&lists("h:1"), access), ["world:anyone ALL"]);
        }
    }

    #[test]
    fn nodes_belong_to_the_credentials_except_shared_parents() {
        let own = lists("zk://u:p@h:1");
        assert_eq!(entries_of(&own, NodeAccess::Open), ["auth: ALL", "world:anyone READ|CREATE"]);
        assert_eq!(entries_of(&own, NodeAccess::Readable), ["auth: ALL"]);
        assert_eq!(entries_of(&own, NodeAccess::Cluster), ["auth: ALL"]);
        let readable = readable("zk://u:p@h:1");
        assert_eq!(entries_of(&readable, NodeAccess::Readable), ["auth: ALL", "world:anyone READ"]);
        assert_eq!(entries_of(&readable, NodeAccess::Cluster), ["auth: ALL"]);
    }

    #[test]
    fn acl_mismatch_reports_world_permissions_that_differ() {
        let (open, own, readable) = (lists("h:1"), lists("zk://u:p@h:1"), readable("zk://u:p@h:1"));
        let world_permission = open.of(NodeAccess::Cluster);
        let cases = [
            (&open, own.of(NodeAccess::Cluster), NodeAccess::Cluster, None),
            (&own, world_permission, NodeAccess::Cluster, Some("ALL")),
            (&own, world_permission, NodeAccess::Open, None),
            (&own, own.of(NodeAccess::Readable), NodeAccess::Readable, None),
            (&readable, own.of(NodeAccess::Readable), NodeAccess::Readable, Some("NONE")),
            (&own, readable.of(NodeAccess::Readable), NodeAccess::Readable, Some("READ")),
        ];
        for (lists, list, access, expected) in cases {
            assert_eq!(lists.acl_mismatch(&list, access).as_deref(), expected, "{lists:?} {list:?}");
        }
    }

    #[test]
    fn strict_acls_let_others_create_in_shared_parents_only() {
        use NodeAccess::{Cluster, Open, Readable};
        // echo -n u:p | openssl sha1 -binary | base64
        let own_id = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";
        let entry = |scheme: &str, id: &str, permission| Acl::new(permission, AuthId::new(scheme, id));
        let own = entry("digest", own_id, Permission::ALL);
        let world = |permission| entry("world", "anyone", permission);
        let (read, all) = (Permission::READ, Permission::ALL);
        let read_create = read | Permission::CREATE;
        let users = [("x509", "CN=own"), ("ip", "127.0.0.1")].map(|(scheme, user)| AuthUser::new(scheme, user));
        let lists = lists("zk://u:p@h:1,i:2/root");
        for (entries, access, expected) in [
            (vec![own.clone(), world(read_create)], Open, None),
            (vec![world(all)], Open, Some("WRITE|DELETE|ADMIN")),
            (vec![own.clone(), world(read_create | Permission::DELETE)], Open, Some("DELETE")),
            (vec![own.clone(), entry("ip", "0.0.0.0/0", all)], Open, Some("WRITE|DELETE|ADMIN")),
            (vec![entry("digest", "db:x", all), world(read_create)], Open, None),
            (vec![own.clone()], Cluster, None),
            (vec![entry("digest", "u:x", Permission::WRITE)], Cluster, None),
            (vec![own.clone(), world(read)], Readable, None),
            (vec![own.clone(), world(read)], Cluster, None),
            (vec![own.clone(), world(read_create)], Cluster, Some("CREATE")),
            (vec![own.clone(), entry("digest", "u:other", all)], Cluster, Some("WRITE|CREATE|DELETE|ADMIN")),
            (vec![own.clone(), entry("sasl", "u", Permission::ADMIN)], Readable, Some("ADMIN")),
            (vec![own.clone(), entry("x509", "CN=u", read)], Cluster, None),
            (vec![own.clone(), entry("x509", "CN=u", all)], Cluster, Some("WRITE|CREATE|DELETE|ADMIN")),
            (vec![own.clone(), entry("x509", "CN=own", all)], Cluster, None),
            (vec![own, entry("ip", "127.0.0.1", Permission::WRITE)], Cluster, Some("WRITE")),
        ] {
            let found = lists.exposure("/a", &entries, access, &users).map(|exposure| exposure.finding);
            let expected = expected.map(|what| format!("/root/a grants {what} to others"));
            assert_eq!(found, expected, "{entries:?}");
        }
    }

    #[test]
    fn exposure_names_the_command_that_repairs_it() {
        let repair = |lists: &AclPolicy, access| {
            let exposure = lists
                .exposure("/a", &[Acl::new(Permission::ALL, AuthId::anyone())], access, &[])
                .expect("it is exposed");
            assert!(!exposure.repair.contains("pass"));
            (exposure.repair, exposure.servers)
        };
        let own = lists("zk://u:pass@h:1,i:2/root");
        let servers = || "h:1,i:2".to_owned();
        let open = "setAcl /root/a auth::cdrwa,world:anyone:cr";
        assert_eq!(repair(&own, NodeAccess::Open), (open.to_owned(), servers()));
        assert_eq!(repair(&own, NodeAccess::Readable), ("setAcl /root/a auth::cdrwa".to_owned(), servers()));
        let readable = readable("zk://u:pass@h:1,i:2/root");
        let world = "setAcl /root/a auth::cdrwa,world:anyone:r";
        assert_eq!(repair(&readable, NodeAccess::Readable), (world.to_owned(), servers()));
    }

    #[test]
    fn acls_are_strict_with_credentials_unless_disabled() {
        let world_permission = [Acl::new(Permission::ALL, AuthId::anyone())];
        let address = |text: &str| text.parse::<ZooKeeperAddress>().unwrap();
        for (address, strict) in [
            (address("h:1"), false),
            (address("h:1").strict(true), false),
            (address("zk://u:p@h:1"), true),
            (address("zk://u:p@h:1").strict(true), true),
            (address("zk://u:p@h:1").strict(false), false),
            (address("h:1").with_credentials("u:p").unwrap(), true),
        ] {
            let found = AclPolicy::new(&address).exposure("/a", &world_permission, NodeAccess::Cluster, &[]);
            assert_eq!(found.is_some(), strict, "{address} {strict}");
        }
    }
}
