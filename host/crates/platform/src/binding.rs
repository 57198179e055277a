//! Names of the platforms, and their detection.

use std::{fmt, path::Path};

use ochopod_environment::Env;

/// Platform that a pod runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// This machine alone: loopback addresses.
    Local,
    /// A task of Marathon.
    Marathon,
    /// A task of Marathon whose addresses are those of the EC2 instance.
    MarathonEc2,
    /// A container of a Kubernetes pod.
    Kubernetes,
    /// A task of Nomad.
    Nomad,
    /// A container of an ECS task.
    Ecs,
    /// A container without an orchestrator.
    Docker,
    /// Any machine.
    Generic,
}

impl Binding {
    /// All bindings.
    pub const ALL: [Self; 8] = [
        Self::Local,
        Self::Marathon,
        Self::MarathonEc2,
        Self::Kubernetes,
        Self::Nomad,
        Self::Ecs,
        Self::Docker,
        Self::Generic,
    ];

    /// Returns the name, which is registered as `binding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Marathon => "marathon",
            Self::MarathonEc2 => "marathon-ec2",
            Self::Kubernetes => "kubernetes",
            Self::Nomad => "nomad",
            Self::Ecs => "ecs",
            Self::Docker => "docker",
            Self::Generic => "generic",
        }
    }

    /// Finds a binding by its name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|binding| binding.name() == name)
    }

    /// Detects the platform by the variables that it sets.
    #[must_use]
    pub fn detect(env: &Env, is_container: bool) -> Self {
        let is_set = |name: &str| env.text(name).is_some();
        if is_set("MARATHON_APP_ID") {
            Self::Marathon
        } else if is_set("KUBERNETES_SERVICE_HOST") {
            Self::Kubernetes
        } else if is_set("NOMAD_ALLOC_ID") {
            Self::Nomad
        } else if is_set("ECS_CONTAINER_METADATA_URI_V4") {
            Self::Ecs
        } else if is_container {
            Self::Docker
        } else {
            Self::Generic
        }
    }

    /// Returns whether the platform starts a container again that exits, with a new pod in it.
    #[must_use]
    pub fn restarts_containers(self) -> bool {
        matches!(self, Self::Kubernetes | Self::Nomad)
    }

    /// Returns whether Marathon runs the pod.
    #[must_use]
    pub fn is_marathon(self) -> bool {
        matches!(self, Self::Marathon | Self::MarathonEc2)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns whether this process runs in a container of Docker or Podman.
#[must_use]
pub fn is_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_is_detected_by_its_variables_and_by_files_of_containers() {
        let all = [
            ("ECS_CONTAINER_METADATA_URI_V4", Binding::Ecs),
            ("NOMAD_ALLOC_ID", Binding::Nomad),
            ("KUBERNETES_SERVICE_HOST", Binding::Kubernetes),
            ("MARATHON_APP_ID", Binding::Marathon),
        ];
        for (count, (_, expected)) in all.iter().enumerate() {
            let env: Env = all[..=count].iter().map(|(name, _)| (*name, "x")).collect();
            assert_eq!(Binding::detect(&env, true), *expected, "the first of several");
        }
        let empty = Env::from_iter([("MARATHON_APP_ID", "")]);
        assert_eq!(Binding::detect(&empty, false), Binding::Generic);
        assert_eq!(Binding::detect(&empty, true), Binding::Docker);
    }

    #[test]
    fn names_find_their_bindings() {
        for binding in Binding::ALL {
            assert_eq!(Binding::find(binding.name()), Some(binding));
        }
        assert_eq!(Binding::find("Marathon"), None);
    }
}
