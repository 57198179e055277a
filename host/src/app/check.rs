//! `ochopod check`: validates a plugin and prints what it is and requests, without running it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use ochopod_entry::SystemError;
use ochopod_environment::Env;
use ochopod_init::{HostExit, Privileges};
use ochopod_model::{ClusterName, status::LifecycleReport};
use ochopod_plugin::{
    self as plugin, Compiler, Description, Engine, Grants, Inspection, LoopbackPorts, Plugin, SandboxConfig,
};
use ochopod_telemetry::escape::{self, Escaped};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::{error::StartError, host_context::Detected, settings_json};
use crate::{
    cli::CheckArgs,
    settings::{grant_flags, platform::PlatformSettings},
};

/// Memory limit of a plugin that describes itself.
const MAX_MEMORY_BYTES: usize = 256 << 20;

pub(super) async fn check(args: CheckArgs, env: &Env) -> Result<HostExit, StartError> {
    grant_flags::declare(&args.grants);
    let grants = grant_flags::read_alone(&args.grants).map_err(StartError::Settings)?;
    let detected = Detected::detect(env, &args.settings, false).await?;
    let platform = PlatformSettings::read(detected.input(env, &args.settings, &args.grants));
    let platform = platform.map_err(StartError::Settings)?;
    let engine = Engine::new().map_err(StartError::Engine)?;
    let sandbox = plugin::PodSandbox::new(SandboxConfig {
        cluster: ClusterName::default(),
        grants: grants.clone(),
        environment: BTreeMap::new(),
        privileges: Privileges::default(),
        blocked: Vec::new(),
        loopback: LoopbackPorts::default(),
        memory: MAX_MEMORY_BYTES,
        process: watch::channel(LifecycleReport::default()).1,
        report: watch::Sender::default(),
        metrics: Arc::default(),
        init: None,
    });
    let plugin =
        Plugin::load(&engine, &args.plugin, None, &Compiler::InProcess, &sandbox).await.map_err(StartError::Plugin)?;
    let (inspection, description) = (plugin.inspect(), plugin.description());
    let report = if args.output == "json" {
        json_text(&json_report(&args.plugin, &inspection, description, &grants, &platform))
    } else {
        text_report(&args.plugin, &inspection, description, &grants, args.verbose) + &platform_text(&platform)
    };
    io::stdout().write_all(report.as_bytes()).map_err(SystemError::of("cannot write the report"))?;
    Ok(HostExit::Stopped)
}

/// Returns the report for people.
fn text_report(
    path: &Path,
    inspection: &Inspection,
    description: &Description,
    grants: &Grants,
    verbose: bool,
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&row(name, value));
    line("plugin", &path.display().to_string());
    line("world", &inspection.world);
    line("exports", &inspection.exports.join(", "));
    if verbose {
        line("imports", &inspection.imports.join(", "));
    } else {
        line("imports", &summary(&inspection.imports));
    }
    line("lifecycle", &description.lifecycle.to_string());
    line("model", &description.model.to_string());
    for tool in &description.tools {
        line("tool", &format!("{}: {}", tool.name, tool.help));
    }
    let missing = description.wants.missing_flags(grants);
    line("missing", &if missing.is_empty() { "none".to_owned() } else { missing.join(" ") });
    let ports: Vec<String> =
        description.wants.loopback().map(|port| port.map_or_else(|| "*".to_owned(), |port| port.to_string())).collect();
    if !ports.is_empty() {
        line("loopback", &format!("{} (no flag needed)", ports.join(" ")));
    }
    if !description.wants.environment.is_empty() {
        line(
            "variables",
            &format!("{} (with --exec, configure may set only these)", description.wants.environment.join(" ")),
        );
    }
    let denied: Vec<&str> = description.wants.denied_secrets().collect();
    if !denied.is_empty() {
        line("denied", &format!("{} (secrets of host and platform are never granted)", denied.join(" ")));
    }
    text
}

/// Returns the platform with the source of each value, and the look-ups that failed.
fn platform_text(platform: &PlatformSettings) -> String {
    let values = platform.values.iter().map(|(name, value)| row(name, &format!("{} ({})", value.text, value.source)));
    let problems = platform.problems.iter().map(|problem| row("problem", &problem.to_string()));
    [row("binding", platform.binding.name())].into_iter().chain(values).chain(problems).collect()
}

/// Returns the platform for programs.
fn platform_json(platform: &PlatformSettings) -> Value {
    let values = platform.values.iter();
    let values =
        values.map(|(name, value)| ((*name).to_owned(), json!({ "value": value.text, "source": value.source })));
    let problems = platform.problems.iter().map(ToString::to_string);
    json!({
        "binding": platform.binding.name(),
        "values": values.collect::<Map<_, _>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

/// Counts interfaces by package: `12 interfaces of ochopod:pod, wasi:cli (-v lists them)`.
fn summary(imports: &[String]) -> String {
    let mut packages: Vec<&str> = imports.iter().filter_map(|name| name.split(['/', '@']).next()).collect();
    packages.sort_unstable();
    packages.dedup();
    match imports.len() {
        0 => "none".to_owned(),
        1 => format!("1 interface of {} (-v lists it)", packages.join(", ")),
        count => format!("{count} interfaces of {} (-v lists them)", packages.join(", ")),
    }
}

/// Returns the text of a report. Characters that control a terminal are escaped: the plugin may be hostile.
fn json_text(report: &Value) -> String {
    escape::json(&format!("{report:#}\n"))
}

/// Returns the report for programs. The keys are stable and listed in `--help`.
fn json_report(
    path: &Path,
    inspection: &Inspection,
    description: &Description,
    grants: &Grants,
    platform: &PlatformSettings,
) -> Value {
    let Description { lifecycle, model, tools, wants } = description;
    let directories = wants.directories.iter();
    let directories: Vec<Value> =
        directories.map(|wanted| json!({ "guest": wanted.guest, "writable": wanted.writable })).collect();
    let tools: Vec<Value> = tools.iter().map(|tool| json!({ "name": tool.name, "help": tool.help })).collect();
    json!({
        "plugin": path.display().to_string(),
        "world": inspection.world,
        "exports": inspection.exports,
        "imports": inspection.imports,
        "lifecycle": settings_json::lifecycle(lifecycle),
        "model": settings_json::model(model),
        "tools": tools,
        "requests": {
            "directories": directories,
            "network": wants.network,
            "programs": wants.programs,
            "variables": wants.environment,
        },
        "missing": wants.missing_flags(grants),
        "platform": platform_json(platform),
        "denied": wants.denied_secrets().collect::<Vec<_>>(),
    })
}

/// Returns a line of the report. Texts of the plugin cannot hide what it requests.
fn row(name: &str, value: &str) -> String {
    format!("{name:<10} {}\n", Escaped(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_plugin_stays_on_its_line_and_hides_nothing() {
        let help = "harmless\u{1b}[1A\u{1b}[2K\r\u{202e}\u{2028}\nmissing    none";
        let expected = r"tool       harmless\u{1b}[1A\u{1b}[2K\r\u{202e}\u{2028}\nmissing    none";
        assert_eq!(row("tool", help), format!("{expected}\n"));
    }

    #[test]
    fn json_of_a_hostile_plugin_is_harmless_and_the_same_json() {
        let report = json!({ "help": "\u{9b}2J\u{202e}\u{200b}é", "lines": [1] });
        let text = json_text(&report);
        assert!(!text.contains(['\u{9b}', '\u{202e}', '\u{200b}']) && text.ends_with("\n}\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), report);
    }

    #[test]
    fn imports_are_counted_by_package() {
        let imports = ["ochopod:pod/log@0.1.0", "wasi:cli/stdout@0.2.0", "wasi:cli/stderr@0.2.0"].map(str::to_owned);
        assert_eq!(summary(&imports), "3 interfaces of ochopod:pod, wasi:cli (-v lists them)");
        assert_eq!(summary(&imports[..1]), "1 interface of ochopod:pod (-v lists it)");
        assert_eq!(summary(&[]), "none");
    }
}
