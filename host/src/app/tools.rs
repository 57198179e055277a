//! Runs the tools of `POST /exec`, each in its own plugin instance.

use std::{sync::Arc, time::Duration};

use ochopod_control::{ExecOutput, ExecRequest};
use ochopod_lifecycle::Failure;
use ochopod_plugin::{self as plugin, PluginSlot, PodPlugin};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Instrument as _;

/// Time limit of a tool.
const TOOL_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs tools of the plugin in force until the sender of requests is dropped.
///
/// # Cancellation safety
/// Dropping the future stops running tools.
pub(super) async fn run_tools(slot: PluginSlot, mut requests: mpsc::Receiver<ExecRequest>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => drop(running.spawn(run_tool(slot.current(), request).in_current_span())),
                None => return,
            },
            Some(_) = running.join_next() => {}
        }
    }
}

async fn run_tool(plugin: Arc<PodPlugin>, request: ExecRequest) {
    let uploads = plugin::Uploads {
        directory: request.uploads.as_ref().map(|uploads| uploads.directory().to_owned()),
        names: request.uploads.as_ref().map(|uploads| uploads.names.clone()).unwrap_or_default(),
    };
    let (code, pod) = (plugin.plugin(), plugin.sandbox());
    let result = code.run_tool(pod, request.name, request.arguments, uploads, TOOL_TIMEOUT).await;
    let result = match result {
        Ok(output) => Ok(ExecOutput { code: output.code, stdout: output.stdout }),
        // The error text of a tool is output, as with programs of a shell.
        Err(plugin::PluginError::Rejected(text)) => {
            Ok(ExecOutput { code: 1, stdout: text.lines().map(str::to_owned).collect() })
        }
        Err(error) => Err(Failure { callback: Some("run"), blame: error.blame(), message: error.to_string() }),
    };
    // The client may have disconnected.
    _ = request.reply.send(result);
}
