//! Where the types of the WIT package meet those of this crate.

use crate::{
    Cluster, Command, Dependency, Directory, ModelSettings, Output, Pod, Settings, Tool, Wants,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
};

impl From<types::Pod> for Pod {
    fn from(pod: types::Pod) -> Self {
        let types::Pod { key, seq, ip, public, node, application, task, status, port, ports, settings } = pod;
        let (ports, settings) = (ports.into_iter().collect(), settings.into_iter().collect());
        Self { key, seq, ip, public, node, application, task, status, port, ports, settings }
    }
}

impl From<types::Dependency> for Dependency {
    fn from(dependency: types::Dependency) -> Self {
        Self { name: dependency.name, pods: dependency.pods.into_iter().map(Into::into).collect() }
    }
}

impl From<types::Cluster> for Cluster {
    fn from(view: types::Cluster) -> Self {
        Self {
            namespace: view.namespace,
            name: view.name,
            key: view.key,
            index: view.index as usize,
            seq: view.seq,
            size: view.size as usize,
            pods: view.pods.into_iter().map(Into::into).collect(),
            dependencies: view.dependencies.into_iter().map(Into::into).collect(),
        }
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
        let Settings { check_every, checks, cwd, grace, pipe_subprocess, shell, soft, strict, wants } = settings;
        Self { check_every, checks, cwd, grace, pipe_subprocess, shell, soft, strict, wants: wants.into() }
    }
}

impl From<ModelSettings> for model::ModelSettings {
    fn from(settings: ModelSettings) -> Self {
        let ModelSettings { damper, depends_on, full_shutdown, grace, probe_every, sequential } = settings;
        Self { damper, depends_on, full_shutdown, grace, probe_every, sequential }
    }
}

impl From<Command> for lifecycle::Command {
    fn from(command: Command) -> Self {
        let environment = command.environment.into_iter().collect();
        Self { program: command.program, arguments: command.arguments, environment }
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
