//! EC2 instance metadata, version 2, and ECS task metadata, version 4.

use serde_json::{Value, json};

use super::{Behaviour, RecordedCall};

/// ID of the instance.
pub const INSTANCE_ID: &str = "i-0123456789abcdef0";
/// Token of the metadata service.
const TOKEN: &str = "AQAAAKtoken==";

/// Answers like the metadata service of an instance with these addresses: tokens are required, and an instance without a
/// public address answers 404 for it.
pub fn instance_metadata(local: &str, public: Option<&str>) -> impl FnMut(&RecordedCall) -> Behaviour + Send + use<> {
    let (local, public) = (local.to_owned(), public.map(str::to_owned));
    move |call: &RecordedCall| {
        if call.method == "PUT" {
            let is_valid = call.path == "/latest/api/token"
                && call
                    .headers
                    .get("x-aws-ec2-metadata-token-ttl-seconds")
                    .is_some_and(|ttl| ttl.parse::<u16>().is_ok());
            return if is_valid { Behaviour::text(200, TOKEN) } else { Behaviour::text(400, "") };
        }
        if call.headers.get("x-aws-ec2-metadata-token").map(String::as_str) != Some(TOKEN) {
            return Behaviour::text(401, "");
        }
        match (call.path.as_str(), &public) {
            ("/latest/meta-data/instance-id", _) => Behaviour::text(200, INSTANCE_ID),
            ("/latest/meta-data/local-ipv4", _) => Behaviour::text(200, local.clone()),
            ("/latest/meta-data/public-ipv4", Some(public)) => Behaviour::text(200, public.clone()),
            _ => Behaviour::text(404, "<html>Not Found</html>"),
        }
    }
}

/// Answers like the task metadata service for a container with this network.
pub fn task_metadata(mode: &str, ip: &str, ports: &Value) -> impl FnMut(&RecordedCall) -> Behaviour + Send + use<> {
    let container = json!({
        "DockerId": "ab12", "Name": "web", "Image": "r.example/web:1",
        "Labels": { "com.amazonaws.ecs.cluster": "prod" },
        "Ports": ports,
        "Networks": [{ "NetworkMode": mode, "IPv4Addresses": [ip], "MACAddress": "02:00:00:00:00:01" }],
    });
    let task = json!({
        "Cluster": "prod", "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/prod/0f1e2d", "Family": "shop",
        "Revision": "24", "Containers": [container],
    });
    move |call: &RecordedCall| match call.path.as_str() {
        "/v4/id" => Behaviour::json(&container),
        "/v4/id/task" => Behaviour::json(&task),
        _ => Behaviour::text(404, ""),
    }
}
