//! The access lists that nodes are created with: pure.

use std::sync::LazyLock;

use zookeeper_client::{Acl, Acls, AuthId, Permission};

use super::{Access, ZooKeeperAddress};

/// Shared parents: whoever creates one can also clean it up; everybody else only lists it and creates in it.
static OPEN: LazyLock<[Acl; 2]> = LazyLock::new(|| own_and_everybodys(Permission::READ | Permission::CREATE));
static READABLE: LazyLock<[Acl; 2]> = LazyLock::new(|| own_and_everybodys(Permission::READ));

fn own_and_everybodys(permission: Permission) -> [Acl; 2] {
    [Acl::new(Permission::ALL, AuthId::authed()), Acl::new(permission, AuthId::anyone())]
}

/// The lists that a session creates nodes with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lists {
    /// Whether it has credentials, and with them something to protect.
    protects: bool,
    world_readable: bool,
}

impl Lists {
    pub(super) fn new(address: &ZooKeeperAddress) -> Self {
        Self { protects: address.credentials().is_some(), world_readable: address.is_world_readable() }
    }

    pub(super) fn of(self, access: Access) -> Acls<'static> {
        match access {
            _ if !self.protects => Acls::anyone_all(),
            Access::Open => Acls::new(&*OPEN),
            Access::Readable if self.world_readable => Acls::new(&*READABLE),
            Access::Readable | Access::Cluster => Acls::creator_all(),
        }
    }

    /// What a list lets everybody do, if that is not what they could do with a node created here. Without credentials there
    /// is nothing to expect; shared parents are whoever's made them.
    pub(super) fn unlike(self, list: &[Acl], access: Access) -> Option<String> {
        if !self.protects || access == Access::Open {
            return None;
        }
        let (given, wanted) = (everybodys(list), everybodys(&self.of(access)));
        (given != wanted).then(|| given.to_string())
    }
}

fn everybodys(list: &[Acl]) -> Permission {
    let anyone = AuthId::anyone();
    let given = list.iter().filter(|acl| *acl.auth_id() == anyone).map(Acl::permission);
    given.fold(Permission::NONE, |all, permission| all | permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(address: &str) -> Lists {
        Lists::new(&address.parse().unwrap())
    }

    fn shown(lists: Lists, access: Access) -> Vec<String> {
        let one = |acl: &Acl| format!("{}:{} {}", acl.scheme(), acl.id(), acl.permission());
        lists.of(access).iter().map(one).collect()
    }

    #[test]
    fn without_credentials_everything_is_everybodys() {
        for access in [Access::Open, Access::Readable, Access::Cluster] {
            assert_eq!(shown(lists("h:1"), access), ["world:anyone ALL"]);
        }
    }

    #[test]
    fn with_credentials_parents_are_open_and_the_cluster_is_its_own() {
        let own = lists("zk://u:p@h:1");
        assert_eq!(shown(own, Access::Open), ["auth: ALL", "world:anyone READ|CREATE"]);
        assert_eq!(shown(own, Access::Readable), ["auth: ALL"]);
        assert_eq!(shown(own, Access::Cluster), ["auth: ALL"]);
        let readable = Lists { world_readable: true, ..own };
        assert_eq!(shown(readable, Access::Readable), ["auth: ALL", "world:anyone READ"]);
        assert_eq!(shown(readable, Access::Cluster), ["auth: ALL"]);
    }

    #[test]
    fn a_node_that_lets_everybody_do_other_things_than_wanted_is_told() {
        let (open, own) = (lists("h:1"), lists("zk://u:p@h:1"));
        let readable = Lists { world_readable: true, ..own };
        let everybodys = open.of(Access::Cluster);
        let cases = [
            (open, own.of(Access::Cluster), Access::Cluster, None),
            (own, everybodys, Access::Cluster, Some("ALL")),
            (own, everybodys, Access::Open, None),
            (own, own.of(Access::Readable), Access::Readable, None),
            (readable, own.of(Access::Readable), Access::Readable, Some("NONE")),
            (own, readable.of(Access::Readable), Access::Readable, Some("READ")),
        ];
        for (lists, list, access, told) in cases {
            assert_eq!(lists.unlike(&list, access).as_deref(), told, "{lists:?} {list:?}");
        }
    }
}
