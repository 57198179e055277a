//! `ochopod check`: what a plugin is and needs, without running it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use tokio::sync::watch;

use super::error::StartError;
use crate::{
    cli::Check,
    cluster::ClusterName,
    init::{Ending, Privileges},
    plugin::{self, Compiler, Engine, Plugin, Services},
    settings::Grants,
    status::LifecycleReport,
};

pub(super) async fn check(check: Check) -> Result<Ending, StartError> {
    let grants = Grants::of(&check.grants).map_err(StartError::Settings)?;
    let engine = Engine::new().map_err(StartError::Engine)?;
    let surroundings = plugin::Pod::new(Services {
        cluster: ClusterName::default(),
        grants: grants.clone(),
        environment: BTreeMap::new(),
        privileges: Privileges::default(),
        closed: Vec::new(),
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::Sender::default(),
        metrics: Arc::default(),
        init: None,
    });
    let plugin =
        Plugin::load(&engine, &check.plugin, None, &Compiler::Here, &surroundings).await.map_err(StartError::Plugin)?;
    io::stdout()
        .write_all(report(&check.plugin, &plugin, &grants).as_bytes())
        .map_err(|source| StartError::System { what: "cannot write the report", source })?;
    Ok(Ending::Stopped)
}

fn report(path: &Path, plugin: &Plugin, grants: &Grants) -> String {
    let (inspection, description) = (plugin.inspect(), plugin.description());
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        _ = writeln!(text, "{name:<10} {value}");
    };
    line("plugin", &path.display().to_string());
    line("world", &inspection.world);
    line("exports", &inspection.exports.join(", "));
    line("imports", &inspection.imports.join(", "));
    line("lifecycle", &format!("{:?}", description.lifecycle));
    line("model", &format!("{:?}", description.model));
    for tool in &description.tools {
        line("tool", &format!("{}: {}", tool.name, tool.help));
    }
    let missing = description.wants.missing(grants);
    line("wants", &if missing.is_empty() { "nothing more than it is granted".to_owned() } else { missing.join(" ") });
    let never: Vec<&str> = description.wants.never_granted().collect();
    if !never.is_empty() {
        line("never", &format!("granted: {}", never.join(" ")));
    }
    text
}
