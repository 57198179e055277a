//! Manifests and jobs in `docs/`: valid for their platforms, and in accordance with the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use ochopod_tests::{Pod, PodBuilder, Result, TestEnv, artifacts};
use regex::Regex;
use serde_json::{Value, json};

use crate::json_schema::validate;

/// Variables of the Kubernetes downward API, with their fields.
const DOWNWARD_API: [(&str, &str); 7] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_UID", "metadata.uid"),
    ("POD_IP", "status.podIP"),
    ("POD_IPS", "status.podIPs"),
    ("NODE_NAME", "spec.nodeName"),
    ("HOST_IP", "status.hostIP"),
];

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(docs(name)).with_context(|| format!("docs/{name}"))
}

fn yaml(name: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(&read(name)?).with_context(|| format!("docs/{name}"))
}

/// Parts of a manifest or a job that the host has to accept.
#[derive(Debug)]
struct Deployment {
    name: &'static str,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
    container_ports: BTreeSet<u64>,
    probes: Vec<String>,
    /// Seconds between SIGTERM and SIGKILL.
    kill_delay: u64,
    text: String,
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is not text"))
}

fn texts(value: &Value) -> Result<Vec<String>> {
    value.as_array().with_context(|| format!("{value} is not a list"))?.iter().map(text).collect()
}

fn variables(value: &Value) -> Result<BTreeMap<String, String>> {
    let members = value.as_object().with_context(|| format!("{value} is not an object"))?;
    members.iter().map(|(name, value)| Ok((name.clone(), text(value)?))).collect()
}

fn kubernetes() -> Result<Deployment> {
    let set = yaml("kubernetes/statefulset.yaml")?.pop().context("no document")?;
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let entries = container["env"].as_array().context("no variables")?;
    let given = entries.iter().filter(|entry| entry["value"].is_string());
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"]["path"]);
    let ports = container["ports"].as_array().context("no ports")?;
    Ok(Deployment {
        name: "kubernetes",
        arguments: texts(&container["args"])?,
        variables: given.map(|entry| Ok((text(&entry["name"])?, text(&entry["value"])?))).collect::<Result<_>>()?,
        container_ports: ports.iter().filter_map(|port| port["containerPort"].as_u64()).collect(),
        probes: probes.into_iter().map(text).collect::<Result<_>>()?,
        kill_delay: pod["terminationGracePeriodSeconds"].as_u64().context("no kill delay")?,
        text: read("kubernetes/statefulset.yaml")?,
    })
}

fn compose() -> Result<Deployment> {
    let file = yaml("compose/compose.yaml")?.pop().context("no document")?;
    let service = &file["services"]["cache"];
    let grace = text(&service["stop_grace_period"])?;
    Ok(Deployment {
        name: "compose",
        arguments: texts(&service["command"])?,
        variables: variables(&service["environment"])?,
        // Containers of one network reach all ports, and Compose sends no request.
        container_ports: BTreeSet::from([8080]),
        probes: Vec::new(),
        kill_delay: grace.strip_suffix('s').context("no seconds")?.parse()?,
        text: read("compose/compose.yaml")?,
    })
}

fn marathon() -> Result<Deployment> {
    let app: Value = serde_json::from_str(&read("marathon/cache.json")?)?;
    let checks = [&app["healthChecks"], &app["readinessChecks"]].map(|checks| &checks[0]["path"]);
    let mappings = app["container"]["portMappings"].as_array().context("no ports")?;
    ensure!(mappings[0]["name"] == "control" && app["healthChecks"][0]["portIndex"] == 0, "another port is checked");
    Ok(Deployment {
        name: "marathon",
        arguments: texts(&app["args"])?,
        variables: variables(&app["env"])?,
        container_ports: mappings.iter().filter_map(|mapping| mapping["containerPort"].as_u64()).collect(),
        probes: checks.into_iter().map(text).collect::<Result<_>>()?,
        kill_delay: app["taskKillGracePeriodSeconds"].as_u64().context("no kill delay")?,
        text: read("marathon/cache.json")?,
    })
}

/// Reads the job by its lines: each attribute has its own.
fn nomad() -> Result<Deployment> {
    let job = read("nomad/cache.nomad.hcl")?;
    ensure!(job.matches('{').count() == job.matches('}').count(), "a block is not closed");
    let all = |pattern: &str| -> Result<Vec<String>> {
        Ok(Regex::new(pattern)?.captures_iter(&job).map(|found| found[1].to_owned()).collect())
    };
    let one = |pattern: &str| -> Result<String> { all(pattern)?.pop().with_context(|| format!("no {pattern}")) };
    let block =
        job.split_once("\n      env {\n").and_then(|(_, rest)| rest.split_once("\n      }")).context("no env")?.0;
    let assignment = Regex::new(r#"^ *(\w+) += "(.*)"$"#)?;
    let assigned = block.lines().map(|line| {
        let found = assignment.captures(line).with_context(|| format!("{line:?} assigns no variable"))?;
        Ok((found[1].to_owned(), found[2].to_owned()))
    });
    Ok(Deployment {
        name: "nomad",
        arguments: serde_json::from_str(&one(r"\n +args += (\[.*\])\n")?)?,
        variables: assigned.collect::<Result<_>>()?,
        container_ports: all(r"\n +to = (\d+)\n")?.iter().filter_map(|port| port.parse().ok()).collect(),
        probes: all("\n +path +=  *\"(.*)\"\n")?,
        kill_delay: one("\n +kill_timeout = \"(\\d+)s\"\n")?.parse()?,
        text: job,
    })
}

fn all() -> Result<[Deployment; 4]> {
    Ok([kubernetes()?, compose()?, nomad()?, marathon()?])
}

#[test]
fn variables_probes_and_times_are_those_of_the_host() -> Result {
    let settings = read("settings.md")?;
    let default_port = "| `--port PORT` | `ochopod_port` | 8080 |";
    ensure!(settings.contains(default_port), "the default of the control port is another one");
    let api: Value = serde_json::from_str(&read("openapi.json")?)?;
    for deployment in all()? {
        let Deployment { name, variables, .. } = &deployment;
        for variable in variables.keys() {
            let port = variable.strip_prefix("PORT_").and_then(|port| port.parse::<u64>().ok());
            let known = settings.contains(&format!("| `{variable}` |")) || port.is_some();
            ensure!(known, "{name}: unknown variable {variable}");
            ensure!(port.is_none_or(|port| deployment.container_ports.contains(&port)), "{name}: {variable}");
        }
        for required in ["ochopod_zk", "ochopod_cluster", "ochopod_token_file"] {
            ensure!(variables.contains_key(required), "{name}: {required} is not set");
        }
        // Kubernetes is recognised by the host, which then exits when its pod is dead.
        let exits = variables.get("ochopod_exit_when_dead").is_some_and(|value| value == "true");
        ensure!(exits || *name == "kubernetes", "{name}: a dead pod stays idle");
        ensure!(deployment.container_ports.contains(&8080), "{name}: the control port is not exposed");
        for probe in &deployment.probes {
            ensure!(api["paths"][probe]["get"].is_object(), "{name}: unknown path {probe}");
        }
        let timeout: u64 = variables.get("ochopod_stop_timeout").context("no stop timeout")?.parse()?;
        ensure!(timeout < deployment.kill_delay, "{name}: killed before {timeout} s are over");
        ensure!(!deployment.text.contains('\t'), "{name}: tabs");
    }
    Ok(())
}

#[tokio::test]
async fn host_starts_with_the_variables_and_arguments_and_answers_the_probes() -> Result {
    let env = TestEnv::new().await?;
    let token = env.scratch().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef")?;
    let mut pods = Vec::new();
    for deployment in all()? {
        pods.push((boot(&env, &deployment, &token)?, deployment));
    }
    for (pod, deployment) in &mut pods {
        pod.wait_info("ready", true).await.context(deployment.name)?;
        for probe in &deployment.probes {
            pod.client().get(probe).await?.is(200).with_context(|| format!("{}: {probe}", deployment.name))?;
        }
        let log = pod.log()?;
        ensure!(!log.contains("ungranted permissions"), "{}: {log}", deployment.name);
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "{}: it did not exit with code 0", deployment.name);
        pod.assert_clean().await?;
    }
    Ok(())
}

/// Starts a pod with the variables and arguments of a deployment. Those that name a place of the platform are the test's.
fn boot(env: &TestEnv, deployment: &Deployment, token: &Path) -> Result<Pod> {
    let [verb, plugin, flags @ ..] = &deployment.arguments[..] else { anyhow::bail!("no plugin") };
    ensure!(verb == "run" && plugin == "/redis.cwasm", "{}: {:?}", deployment.name, deployment.arguments);
    let mut pod: PodBuilder = env.pod(&artifacts::plugin("hello")?);
    for (name, value) in &deployment.variables {
        let is_place = ["ochopod_zk", "ochopod_token_file", "ochopod_ip"].contains(&name.as_str());
        if !is_place && !name.starts_with("PORT_") {
            pod = pod.env(name, value);
        }
    }
    pod.set("cluster", deployment.name)
        .set("token_file", token.display())
        .flags(flags.iter().map(String::as_str))
        .start()
}

/// Validates a document by the schema of its kind.
fn valid(schemas: &Value, document: &Value) -> Result {
    let kind = text(&document["kind"])?;
    let version = text(&document["apiVersion"])?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let identity = json!([{ "group": group, "kind": kind, "version": version }]);
    let definitions = schemas["$defs"].as_object().context("no definitions")?;
    let schema = definitions.values().find(|schema| schema["x-kubernetes-group-version-kind"] == identity);
    validate(schemas, schema.with_context(|| format!("unknown kind {identity}"))?, document, &kind)
}

fn schemas() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/kubernetes.json");
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[test]
fn kubernetes_manifests_match_the_schemas_of_the_api() -> Result {
    let schemas = schemas()?;
    for entry in fs::read_dir(docs("kubernetes"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|extension| extension == "yaml") {
            for document in yaml(&format!("kubernetes/{name}"))? {
                valid(&schemas, &document).with_context(|| name.clone())?;
            }
        }
    }
    Ok(())
}

#[test]
fn invalid_kubernetes_manifests_do_not_match_the_schemas_of_the_api() -> Result {
    let schemas = schemas()?;
    let original = yaml("kubernetes/statefulset.yaml")?.pop().context("no document")?;
    for (pointer, value, expected) in [
        ("/spec/replicas", json!("three"), "StatefulSet.spec.replicas"),
        (
            "/spec/template/spec/containers/0/env/0",
            json!({"nome": "x"}),
            "StatefulSet.spec.template.spec.containers[0]",
        ),
        ("/spec/template/spec/containers/0/livenessProbe/httpGet/port", json!({}), "httpGet.port"),
        ("/spec", json!({"servicename": "cache"}), "StatefulSet"),
        ("/kind", json!("StatefulSets"), "unknown kind"),
    ] {
        let mut document = original.clone();
        *document.pointer_mut(pointer).with_context(|| format!("no {pointer}"))? = value;
        let error = valid(&schemas, &document).err().with_context(|| format!("{pointer}: accepted"))?;
        ensure!(format!("{error:#}").contains(expected), "{pointer}: {error:#}");
    }
    Ok(())
}

#[test]
fn kubernetes_manifests_fit_each_other() -> Result {
    let only = |name: &str| yaml(&format!("kubernetes/{name}"))?.pop().context("no document");
    let (set, service, budget) =
        (only("statefulset.yaml")?, only("service.yaml")?, only("pod-disruption-budget.yaml")?);
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    for (what, selected) in [
        ("the set", &set["spec"]["selector"]["matchLabels"]),
        ("the service", &service["spec"]["selector"]),
        ("the budget", &budget["spec"]["selector"]["matchLabels"]),
    ] {
        ensure!(selected == labels, "{what} selects {selected}, the pods have {labels}");
    }
    ensure!(set["spec"]["serviceName"] == service["metadata"]["name"], "the set names another service");
    ensure!(service["spec"]["clusterIP"] == "None" && service["spec"]["publishNotReadyAddresses"] == true, "{service}");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let ports: Vec<&Value> =
        container["ports"].as_array().context("no ports")?.iter().map(|port| &port["name"]).collect();
    let probed = ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"]["port"]);
    let targets = service["spec"]["ports"].as_array().context("no ports")?.iter().map(|port| &port["targetPort"]);
    for port in targets.chain(probed) {
        ensure!(ports.contains(&port), "no port {port} in {ports:?}");
    }
    let [account, role, binding] = &yaml("kubernetes/rbac.yaml")?[..] else {
        anyhow::bail!("expected three documents")
    };
    ensure!(pod["serviceAccountName"] == account["metadata"]["name"], "the pods have another account");
    ensure!(binding["subjects"][0]["name"] == account["metadata"]["name"], "the role is bound to another account");
    ensure!(binding["roleRef"]["name"] == role["metadata"]["name"], "another role is bound");
    let fields: BTreeMap<&str, &str> = (container["env"].as_array().into_iter().flatten())
        .filter_map(|entry| Some((entry["name"].as_str()?, entry["valueFrom"]["fieldRef"]["fieldPath"].as_str()?)))
        .collect();
    ensure!(fields == BTreeMap::from(DOWNWARD_API), "{fields:?}");
    let mounted: Vec<&Value> = container["volumeMounts"].as_array().into_iter().flatten().map(|m| &m["name"]).collect();
    let volumes: Vec<&Value> = pod["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    ensure!(mounted == volumes, "mounted are {mounted:?}, volumes are {volumes:?}");
    Ok(())
}
