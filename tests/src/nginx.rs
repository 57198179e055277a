//! A real nginx, started by another program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::ensure;

use crate::{Client, Reply, Result};

/// Not in the PATH of every user.
const NGINX: &str = "/usr/sbin/nginx";

/// An nginx on a port of 127.0.0.1, with all of its files in one directory. A pilot starts it.
#[derive(Debug, Clone)]
pub struct Nginx {
    directory: PathBuf,
    port: u16,
}

impl Nginx {
    /// Returns one whose block `http` has this in addition.
    ///
    /// # Errors
    /// If it is not installed, or the directory cannot be written.
    pub fn new(directory: &Path, port: u16, http: &str) -> Result<Self> {
        ensure!(Path::new(NGINX).exists(), "{NGINX} is not there: run `make setup`");
        fs::create_dir_all(directory)?;
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = kinds.map(|kind| format!("{kind}_temp_path {}/{kind};\n", directory.display())).concat();
        let configuration = format!(
            "daemon off;\nworker_processes 1;\npid {0}/pid;\nerror_log {0}/errors;\nevents {{ worker_connections 64; }}\n\
             http {{\naccess_log off;\n{temporary}{http}\n}}\n",
            directory.display()
        );
        fs::write(directory.join("nginx.conf"), configuration)?;
        Ok(Self { directory: directory.to_owned(), port })
    }

    /// Starts a server that answers everything with a text.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn answering(directory: &Path, port: u16, text: &str) -> Result<Self> {
        Self::new(directory, port, &format!("server {{ listen 127.0.0.1:{port}; return 200 \"{text}\"; }}"))
    }

    /// Returns one that passes everything on to the servers that a file names, except `/health`.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn passing(directory: &Path, port: u16, servers: &Path) -> Result<Self> {
        let servers = servers.display();
        let http = format!(
            "upstream servers {{ include {servers}; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://servers; }} \
             location = /health {{ return 200; }} }}"
        );
        Self::new(directory, port, &http)
    }

    /// Returns its command line.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let directory = self.directory.display();
        [NGINX, "-e", &format!("{directory}/errors"), "-c", &format!("{directory}/nginx.conf")]
            .map(str::to_owned)
            .to_vec()
    }

    /// Returns the command that makes the running server read its configuration again.
    #[must_use]
    pub fn reload(&self) -> Vec<String> {
        [self.command(), ["-s", "reload"].map(str::to_owned).to_vec()].concat()
    }

    /// Returns its address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a request, over a connection that is not kept.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn get(&self) -> Result<Reply> {
        Client::new(format!("127.0.0.1:{}", self.port)).get("/").await
    }
}
