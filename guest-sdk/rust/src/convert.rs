//! Conversions between the types of the WIT package and those of this crate.

use crate::{
    Batch, Command, Directory, Error, ModelSettings, OnChange, Output, Pod, Settings, Tool, Wants,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
};

impl From<types::Pod> for Pod {
    fn from(pod: types::Pod) -> Self {
        let types::Pod { key, seq, ip, public, node, application, task, status, role, started, port, ports, settings } =
            pod;
        let (ports, settings) = (ports.into_iter().collect(), settings.into_iter().collect());
        Self { key, seq, ip, public, node, application, task, status, role, started, port, ports, settings }
    }
}

impl From<Directory> for types::Directory {
    fn from(directory: Directory) -> Self {
        Self { guest: directory.guest, writable: directory.writable }
    }
}

impl From<Wants> for types::Wants {
    fn from(wants: Wants) -> Self {
        let Wants { directories, network, programs, environment } = wants;
        Self { directories: directories.into_iter().map(Into::into).collect(), network, programs, environment }
    }
}

impl From<Settings> for lifecycle::LifecycleSettings {
    fn from(settings: Settings) -> Self {
        let Settings {
            check_every,
            checks,
            cwd,
            grace,
            pipe_subprocess,
            shell,
            soft,
            strict,
            on_change,
            ready_within,
            wants,
        } = settings;
        let (on_change, wants) = (on_change.into(), wants.into());
        Self { check_every, checks, on_change, ready_within, cwd, grace, pipe_subprocess, shell, soft, strict, wants }
    }
}

impl From<ModelSettings> for model::ModelSettings {
    fn from(settings: ModelSettings) -> Self {
        let ModelSettings { batch, damper, depends_on, full_shutdown, grace, probe_every, sequential, tolerate } =
            settings;
        Self { batch: batch.into(), damper, depends_on, full_shutdown, grace, probe_every, sequential, tolerate }
    }
}

impl From<OnChange> for lifecycle::ChangePolicy {
    fn from(policy: OnChange) -> Self {
        match policy {
            OnChange::Restart => Self::Restart,
            OnChange::Compare => Self::Compare,
        }
    }
}

impl From<Batch> for model::BatchSize {
    fn from(batch: Batch) -> Self {
        match batch {
            Batch::All => Self::All,
            Batch::Pods(number) => Self::Pods(number),
            Batch::Percent(percent) => Self::Percent(percent),
        }
    }
}

impl From<Error> for lifecycle::Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        if error.is_not_yet() { Self::NotYet(text) } else { Self::Fatal(text) }
    }
}

impl From<Command> for lifecycle::Command {
    fn from(command: Command) -> Self {
        let environment = command.environment.into_iter().collect();
        Self { program: command.program, arguments: command.arguments, environment, reload: command.reload }
    }
}

impl From<&dyn Tool> for tools::Tool {
    fn from(tool: &dyn Tool) -> Self {
        Self { name: tool.name().to_owned(), help: tool.help().to_owned() }
    }
}

impl From<Output> for tools::Output {
    fn from(output: Output) -> Self {
        Self { code: output.code, stdout: output.stdout }
    }
}
