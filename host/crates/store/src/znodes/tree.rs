//! The nodes of a store in memory, with ZooKeeper's rules: pure.

use std::collections::BTreeMap;

use super::{CoordError, Mode, Node, Op};

/// Subject of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchKey {
    /// Existence or content of a node.
    Node(String),
    /// The list of a node's children.
    Children(String),
}

#[derive(Debug, Clone)]
struct TreeEntry {
    node: Node,
    /// Number of the next sequential child.
    next: u64,
}

/// All nodes of a store, by path.
#[derive(Debug, Default, Clone)]
pub struct NodeTree {
    nodes: BTreeMap<String, TreeEntry>,
    transaction: i64,
}

/// Previous entries of the nodes that a commit touched, newest last.
type UndoLog = Vec<(String, Option<TreeEntry>)>;

impl NodeTree {
    /// Returns a node.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Node> {
        if path == "/" {
            return Some(Node { data: Vec::new(), created: 0, owner: None });
        }
        self.nodes.get(path).map(|entry| entry.node.clone())
    }

    /// Returns the names of a node's children; none if the node does not exist.
    #[must_use]
    pub fn children(&self, path: &str) -> Option<Vec<String>> {
        if !self.exists(path) {
            return None;
        }
        Some(self.descendants(path).filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    /// Executes all operations or none. Returns the paths of the created nodes and the changes to notify watches of.
    ///
    /// # Errors
    /// [`CoordError::Conflict`].
    pub fn commit(&mut self, session: i64, ops: Vec<Op>) -> Result<(Vec<String>, Vec<WatchKey>), CoordError> {
        let (mut undo, mut created, mut changed) = (UndoLog::new(), Vec::new(), Vec::new());
        self.transaction += 1;
        for (index, op) in ops.into_iter().enumerate() {
            let path = op.path().to_owned();
            if let Err(reason) = self.apply(session, op, &mut undo, &mut created, &mut changed) {
                for (path, entry) in undo.into_iter().rev() {
                    self.insert(path, entry);
                }
                return Err(CoordError::Conflict { index, path, reason: reason.to_owned() });
            }
        }
        Ok((created, changed))
    }

    /// Deletes the ephemeral nodes of a session. Returns the changes to notify watches of.
    pub fn end(&mut self, session: i64) -> Vec<WatchKey> {
        let owned = |(path, entry): (&String, &TreeEntry)| (entry.node.owner == Some(session)).then(|| path.clone());
        let paths: Vec<String> = self.nodes.iter().filter_map(owned).collect();
        self.transaction += 1;
        let mut changed = Vec::new();
        for path in paths {
            self.nodes.remove(&path);
            deleted(path, &mut changed);
        }
        changed
    }

    fn apply(
        &mut self,
        session: i64,
        op: Op,
        undo: &mut UndoLog,
        created: &mut Vec<String>,
        changed: &mut Vec<WatchKey>,
    ) -> Result<(), &'static str> {
        match op {
            Op::Check(path) => self.exists(&path).then_some(()).ok_or("no such node"),
            Op::Set { path, data } => {
                let mut entry = self.nodes.get(&path).cloned().ok_or("no such node")?;
                entry.node.data = data;
                undo.push((path.clone(), self.insert(path.clone(), Some(entry))));
                changed.push(WatchKey::Node(path));
                Ok(())
            }
            Op::Delete(path) => {
                if self.descendants(&path).next().is_some() {
                    return Err("the node has children");
                }
                let entry = self.nodes.remove(&path).ok_or("no such node")?;
                undo.push((path.clone(), Some(entry)));
                deleted(path, changed);
                Ok(())
            }
            Op::Create { path, data, mode, access: _ } => {
                let path = self.next_sequential(path, mode, undo)?;
                if self.exists(&path) {
                    return Err("the node exists already");
                }
                let owner = (mode != Mode::Persistent).then_some(session);
                let node = Node { data, created: self.transaction, owner };
                self.nodes.insert(path.clone(), TreeEntry { node, next: 0 });
                undo.push((path.clone(), None));
                created.push(path.clone());
                changed.extend([WatchKey::Children(parent(&path).to_owned()), WatchKey::Node(path)]);
                Ok(())
            }
        }
    }

    /// Returns the path, with the next number of the parent if it is sequential. Every child consumes a number.
    fn next_sequential(&mut self, path: String, mode: Mode, undo: &mut UndoLog) -> Result<String, &'static str> {
        let above = parent(&path);
        if above == "/" {
            return Ok(path);
        }
        let entry = self.nodes.get_mut(above).ok_or("the parent does not exist")?;
        if entry.node.owner.is_some() {
            return Err("the parent is ephemeral");
        }
        undo.push((above.to_owned(), Some(entry.clone())));
        let number = entry.next;
        entry.next += 1;
        Ok(if mode == Mode::EphemeralSequential { format!("{path}{number:010}") } else { path })
    }

    fn exists(&self, path: &str) -> bool {
        path == "/" || self.nodes.contains_key(path)
    }

    fn insert(&mut self, path: String, entry: Option<TreeEntry>) -> Option<TreeEntry> {
        match entry {
            Some(entry) => self.nodes.insert(path, entry),
            None => self.nodes.remove(&path),
        }
    }

    fn descendants<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let length = prefix.len();
        let end = prefix.clone();
        self.nodes
            .range(prefix..)
            .take_while(move |(path, _)| path.starts_with(&end))
            .filter_map(move |(path, _)| path.get(length..))
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((parent, _)) => parent,
    }
}

fn deleted(path: String, changed: &mut Vec<WatchKey>) {
    changed.extend([
        WatchKey::Children(parent(&path).to_owned()),
        WatchKey::Children(path.clone()),
        WatchKey::Node(path),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znodes::NodeAccess;

    fn create(path: &str, mode: Mode) -> Op {
        Op::Create { path: path.to_owned(), data: Vec::new(), mode, access: NodeAccess::Cluster }
    }

    fn conflict(tree: &mut NodeTree, ops: Vec<Op>) -> (usize, String) {
        match tree.commit(1, ops) {
            Err(CoordError::Conflict { index, reason, .. }) => (index, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rejected_commit_changes_nothing_including_the_numbering() {
        let mut tree = NodeTree::default();
        tree.commit(1, vec![create("/a", Mode::Persistent)]).unwrap();
        let ops = vec![
            create("/a/n", Mode::EphemeralSequential),
            Op::Set { path: "/a".to_owned(), data: b"x".to_vec() },
            Op::Delete("/b".to_owned()),
        ];
        assert_eq!(conflict(&mut tree, ops), (2, "no such node".to_owned()));
        assert_eq!(tree.children("/a").unwrap(), Vec::<String>::new());
        assert_eq!(tree.read("/a").unwrap().data, b"");
        let (created, _) = tree.commit(1, vec![create("/a/n", Mode::EphemeralSequential)]).unwrap();
        assert_eq!(created, ["/a/n0000000000"]);
    }

    #[test]
    fn violated_rule_is_named_in_the_conflict() {
        let mut tree = NodeTree::default();
        tree.commit(1, vec![create("/a", Mode::Persistent), create("/a/e", Mode::Ephemeral)]).unwrap();
        let rules = [
            (create("/a", Mode::Persistent), "the node exists already"),
            (create("/x/y", Mode::Persistent), "the parent does not exist"),
            (create("/a/e/y", Mode::Persistent), "the parent is ephemeral"),
            (Op::Delete("/a".to_owned()), "the node has children"),
            (Op::Check("/x".to_owned()), "no such node"),
            (Op::Set { path: "/x".to_owned(), data: Vec::new() }, "no such node"),
        ];
        for (op, reason) in rules {
            assert_eq!(conflict(&mut tree, vec![op]), (0, reason.to_owned()));
        }
    }

    #[test]
    fn nodes_that_share_a_name_prefix_are_not_children() {
        let mut tree = NodeTree::default();
        let paths = ["/a", "/a-b", "/a/c", "/a/c/d", "/a0"];
        tree.commit(1, paths.iter().map(|path| create(path, Mode::Persistent)).collect()).unwrap();
        assert_eq!(tree.children("/a").unwrap(), ["c"]);
        assert_eq!(tree.children("/").unwrap(), ["a", "a-b", "a0"]);
    }
}
