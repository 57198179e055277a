//! `ZooKeeper` of the masters, from files that DC/OS and Mesos leave on an agent and containers may mount.

use std::path::Path;

use crate::Value;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Files with a line `MESOS_MASTER=zk://…`, of newer and older versions of DC/OS.
const DCOS_FILES: [&str; 2] = ["opt/mesosphere/etc/mesos-slave-common", "opt/mesosphere/etc/mesos-slave"];
/// File of Mesos packages whose first line is `zk://…`.
const MESOS_FILE: &str = "etc/mesos/zk";

/// Returns the servers of the first file that has some, without chroot and credentials, which are those of Mesos.
pub(crate) fn store(root: &Path) -> Option<Value> {
    let dcos = DCOS_FILES.into_iter().map(|file| (file, "MESOS_MASTER"));
    dcos.chain([(MESOS_FILE, "")]).find_map(|(file, name)| {
        let text = ochopod_files::read(&root.join(file), MAX_FILE_BYTES).ok()?;
        let hosts = servers(&String::from_utf8_lossy(&text), name)?;
        Some(Value::new(format!("zk://{hosts}"), format!("/{file}")))
    })
}

/// Finds the servers in the first line with this name, whatever surrounds the URL.
fn servers(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && line.contains(name));
    let (_, rest) = lines.find_map(|line| line.split_once("zk://"))?;
    let url = rest.split(|c: char| c.is_whitespace() || "\"'".contains(c)).next()?;
    let hosts = url.split('/').next()?;
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    (!hosts.is_empty()).then(|| hosts.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn servers_of_the_masters_are_found_in_each_file_in_order() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = || store(root.path()).map(|value| (value.text, value.source.into_owned()));
        assert_eq!(found(), None);
        write("etc/mesos/zk", "zk://10.0.0.1:2181,10.0.0.2:2181/mesos\n");
        assert_eq!(found(), Some(("zk://10.0.0.1:2181,10.0.0.2:2181".into(), "/etc/mesos/zk".into())));
        write("opt/mesosphere/etc/mesos-slave", "MESOS_MASTER=zk://old:2181/mesos");
        assert_eq!(found().unwrap().0, "zk://old:2181");
        write(
            "opt/mesosphere/etc/mesos-slave-common",
            "# MESOS_MASTER=zk://comment:1/x\nMESOS_PORT=5051\nexport MESOS_MASTER=\"zk://me:pw@zk-1.zk:2181/mesos\"\n",
        );
        assert_eq!(found().unwrap().0, "zk://zk-1.zk:2181");
        write("opt/mesosphere/etc/mesos-slave-common", "MESOS_MASTER=leader.mesos:5050");
        assert_eq!(found().unwrap().0, "zk://old:2181", "a master without ZooKeeper");
    }
}
