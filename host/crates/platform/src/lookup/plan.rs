//! Decision on the look-ups that a pod needs.

use std::{fs, path::PathBuf};

use ochopod_environment::Env;

use super::{InstanceMetadata, ecs::EcsRequest, kubernetes::KubernetesRequest};
use crate::Binding;

/// Default directory of the service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const HTTPS_PORT: u16 = 443;
/// Address of the metadata service, and the one in IPv6.
const EC2_ENDPOINT: &str = "http://169.254.169.254";
const EC2_ENDPOINT_IPV6: &str = "http://[fd00:ec2::254]";

/// Settings of the operator that make look-ups unnecessary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one setting")]
pub struct OperatorSettings<'a> {
    /// Address.
    pub ip: bool,
    /// Public address.
    pub public: bool,
    /// Machine.
    pub node: bool,
    /// Application.
    pub application: bool,
    /// Task.
    pub task: bool,
    /// Address of `ZooKeeper`.
    pub zk: bool,
    /// Directory of the service account, if it is not the default.
    pub service_account: Option<&'a str>,
}

/// The look-ups of a pod.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LookUps {
    pub(super) ec2: Option<InstanceMetadata>,
    pub(super) ecs: Option<EcsRequest>,
    pub(super) kubernetes: Option<KubernetesRequest>,
    /// Whether the files of Mesos are read.
    pub(super) mesos: bool,
}

impl LookUps {
    /// Decides by variables and settings. `hostname` is the name of this container, `is_ec2` whether the machine is an EC2
    /// instance.
    #[must_use]
    pub fn plan(binding: Binding, env: &Env, hostname: &str, settings: &OperatorSettings<'_>, is_ec2: bool) -> Self {
        if binding == Binding::Local {
            return Self::default();
        }
        Self {
            ec2: ec2(binding, env, settings, is_ec2),
            ecs: if binding == Binding::Ecs { ecs(env, settings) } else { None },
            kubernetes: if binding == Binding::Kubernetes { kubernetes(env, hostname, settings) } else { None },
            mesos: binding.is_marathon() && !settings.zk,
        }
    }

    /// Returns whether no look-up is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the service that has the public address of the EC2 instance.
    #[must_use]
    pub fn instance_metadata(&self) -> Option<&InstanceMetadata> {
        self.ec2.as_ref()
    }
}

/// Returns whether this machine is an EC2 instance, according to its firmware. On Fargate there is no metadata service.
#[must_use]
pub(crate) fn is_ec2(env: &Env) -> bool {
    match env.text("AWS_EXECUTION_ENV") {
        Some(name) if name.contains("FARGATE") => return false,
        Some("AWS_ECS_EC2") => return true,
        _ => {}
    }
    let starts = |file: &str, text: &str| fs::read_to_string(file).is_ok_and(|content| content.starts_with(text));
    starts("/sys/devices/virtual/dmi/id/sys_vendor", "Amazon EC2") || starts("/sys/hypervisor/uuid", "ec2")
}

/// Returns the EC2 metadata service, if it is to be queried. On Kubernetes it is queried only if its address is set,
/// because nodes commonly keep pods from it.
fn ec2(binding: Binding, env: &Env, settings: &OperatorSettings<'_>, is_ec2: bool) -> Option<InstanceMetadata> {
    let endpoint = env.text("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let is_suggested =
        binding == Binding::MarathonEc2 || endpoint.is_some() || (is_ec2 && binding != Binding::Kubernetes);
    let is_disabled = env.text("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let is_set_by_operator = settings.ip && settings.public && settings.node;
    let is_ipv6 =
        env.text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let default = if is_ipv6 { EC2_ENDPOINT_IPV6 } else { EC2_ENDPOINT };
    let endpoint = endpoint.unwrap_or(default).to_owned();
    (is_suggested && !is_disabled && !is_set_by_operator).then_some(InstanceMetadata { endpoint })
}

/// Returns the ECS request. Ports of the container are always needed.
fn ecs(env: &Env, settings: &OperatorSettings<'_>) -> Option<EcsRequest> {
    let uri = env.text("ECS_CONTAINER_METADATA_URI_V4")?.to_owned();
    Some(EcsRequest { uri, needs_ip: !settings.ip })
}

/// Returns the Kubernetes request; none if variables and settings name the pod, its address, its node and its application.
fn kubernetes(env: &Env, hostname: &str, settings: &OperatorSettings<'_>) -> Option<KubernetesRequest> {
    let text = |name: &str| env.text(name).map(str::to_owned);
    let is_set = |is_set_by_operator: bool, names: &[&str]| {
        is_set_by_operator || names.iter().any(|name| env.text(name).is_some())
    };
    let is_located = is_set(settings.ip, &["POD_IP", "POD_IPS"])
        && is_set(settings.node, &["NODE_NAME"])
        && is_set(settings.task, &["POD_NAME"]);
    if is_located && settings.application && settings.zk {
        return None;
    }
    let port = text("KUBERNETES_SERVICE_PORT_HTTPS").or_else(|| text("KUBERNETES_SERVICE_PORT"));
    Some(KubernetesRequest {
        host: text("KUBERNETES_SERVICE_HOST")?,
        port: port.and_then(|port| ochopod_model::port(&port)).unwrap_or(HTTPS_PORT),
        service_account: PathBuf::from(settings.service_account.unwrap_or(SERVICE_ACCOUNT)),
        namespace: text("POD_NAMESPACE"),
        pod: text("POD_NAME").or_else(|| text("HOSTNAME")).unwrap_or_else(|| hostname.to_owned()),
        needs_pod: !is_located,
        needs_owner: !settings.application,
        needs_public: !settings.public,
        needs_store: !settings.zk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: OperatorSettings<'_> = OperatorSettings {
        ip: true,
        public: true,
        node: true,
        application: true,
        task: true,
        zk: true,
        service_account: None,
    };

    fn plan(variables: &[(&str, &str)], settings: &OperatorSettings<'_>, is_ec2: bool) -> LookUps {
        let env: Env = variables.iter().copied().collect();
        LookUps::plan(Binding::detect(&env, false), &env, "box", settings, is_ec2)
    }

    #[test]
    fn look_ups_are_planned_only_for_a_detected_platform_with_missing_settings() {
        let none = OperatorSettings { zk: true, ..OperatorSettings::default() };
        let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        let downward = [("POD_IP", "10.2.0.1"), ("NODE_NAME", "n"), ("POD_NAME", "web-0")];
        let downward = [&kubernetes[..], &downward].concat();
        let ecs = [("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")];
        let application = OperatorSettings { application: true, ..none };
        for (variables, settings, is_ec2, is_empty) in [
            (&[][..], &OperatorSettings::default(), false, true),
            (&[], &none, true, false),
            (&[], &ALL, true, true),
            (&[("AWS_EC2_METADATA_DISABLED", "true")], &none, true, true),
            (&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[::1]:1")], &none, false, false),
            (&[("MARATHON_APP_ID", "/web")], &none, false, true),
            (&[("MARATHON_APP_ID", "/web")], &OperatorSettings::default(), false, false),
            (&[("NOMAD_ALLOC_ID", "4f1b")], &none, false, true),
            (&kubernetes, &none, false, false),
            (&downward, &none, false, false),
            (&downward, &application, true, true),
            (&kubernetes, &ALL, true, true),
            (&ecs, &none, false, false),
            (&ecs, &ALL, false, false),
        ] {
            assert_eq!(plan(variables, settings, is_ec2).is_empty(), is_empty, "{variables:?} {settings:?}");
        }
        let env = Env::from_iter(kubernetes);
        assert!(LookUps::plan(Binding::Local, &env, "box", &OperatorSettings::default(), true).is_empty());
        assert!(!LookUps::plan(Binding::MarathonEc2, &env, "box", &none, false).is_empty());
    }

    #[test]
    fn addresses_of_the_services_follow_the_variables_of_their_clients() {
        let endpoint = |variables: &[(&str, &str)]| {
            plan(variables, &OperatorSettings::default(), true)
                .instance_metadata()
                .map(|service| service.endpoint.clone())
        };
        let mode = ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
        assert_eq!(endpoint(&[]).as_deref(), Some(EC2_ENDPOINT));
        assert_eq!(endpoint(&[mode]).as_deref(), Some(EC2_ENDPOINT_IPV6));
        let own = [mode, ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338")];
        assert_eq!(endpoint(&own).as_deref(), Some("http://127.0.0.1:1338"));
        let variables = [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "6443")];
        let settings = OperatorSettings { service_account: Some("/account"), ..OperatorSettings::default() };
        let request = plan(&variables, &settings, false).kubernetes.unwrap();
        assert_eq!((&*request.host, request.port, &*request.pod), ("fd00::1", 6443, "box"));
        assert_eq!(request.service_account, PathBuf::from("/account"));
        assert!(request.needs_owner && request.needs_public && request.needs_store);
    }
}
