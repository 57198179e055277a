//! Runs the tools that `POST /exec` asks for, each in an instance of its own.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    control::{ToolOutput, ToolRun},
    lifecycle::Failure,
    plugin::{self, Plugin},
};

/// How long a tool may run.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs tools until nobody can ask for one any more.
///
/// # Cancellation safety
/// Dropping the future ends the tools that run.
pub(super) async fn run_tools(plugin: Plugin, pod: plugin::Pod, mut runs: mpsc::Receiver<ToolRun>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            run = runs.recv() => match run {
                Some(run) => drop(running.spawn(run_tool(plugin.clone(), pod.clone(), run))),
                None => return,
            },
            Some(_) = running.join_next() => {}
        }
    }
}

async fn run_tool(plugin: Plugin, pod: plugin::Pod, run: ToolRun) {
    let uploads = plugin::Uploads {
        directory: run.uploads.as_ref().map(|uploads| uploads.directory().to_owned()),
        names: run.uploads.as_ref().map(|uploads| uploads.names.clone()).unwrap_or_default(),
    };
    let result = plugin.run_tool(&pod, run.name, run.arguments, uploads, LIMIT).await;
    let result = match result {
        Ok(output) => Ok(ToolOutput { code: output.code, stdout: output.stdout }),
        // What a tool says against itself is output, as with the programs of a shell.
        Err(plugin::PluginError::Rejected(text)) => {
            Ok(ToolOutput { code: 1, stdout: text.lines().map(str::to_owned).collect() })
        }
        Err(error) => Err(Failure { callback: Some("run"), blame: error.blame(), message: error.to_string() }),
    };
    // Whoever asked may have hung up.
    _ = run.reply.send(result);
}
