//! Time of a check of a large view, by what the plugin reads of it. The part of parsing and HTTP is the same in each line.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{Latencies, Result, artifacts, eventually};
use serde_json::{Map, Value, json};

use crate::{Bench, figures::Table};

const PODS: usize = 1000;
const RUNS: usize = 5;
const REQUESTS: usize = 50;
/// Parts that the plugin `misbehaving` reads.
const READS: [(&str, &str); 4] = [
    ("nothing", "check of 1,000 pods, callback reads nothing"),
    ("size,index", "check of 1,000 pods, callback reads size and index"),
    ("grep", "check of 1,000 pods, callback reads grep"),
    ("pods", "check of 1,000 pods, callback reads all pods"),
];

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    for (what, name) in READS {
        let env = bench.env().await?;
        let leader = env.cluster("default").lead().await?;
        let pod = bench.of_release(env.pod(&artifacts::misbehaving()?))?.set("test_reads", what).start()?;
        let own = eventually("the pod registers", Duration::from_secs(20), async || {
            env.cluster("default").registrations().await?.into_iter().next().context("no pod is registered")
        });
        let (key, own) = own.await?;
        let body = Bytes::from(view(&key, &json!(own)).to_string());
        let epoch = leader.epoch().to_string();
        let headers = [("content-type", "application/json"), ("x-ochopod-epoch", epoch.as_str())];
        let check =
            async || pod.client().send(Method::POST, "/control/check/60", &headers, body.clone()).await?.is(200);
        let mut samples = Vec::new();
        for _ in 0..RUNS {
            samples.push(Latencies::of(REQUESTS, check).await?.percentile(50));
        }
        table.times(name, &samples, "", "");
    }
    Ok(())
}

/// Returns a view of this pod and others like it, with a dependency.
fn view(key: &str, own: &Value) -> Value {
    let pods: Map<String, Value> = (1..PODS)
        .map(|seq| {
            let mut pod = own.clone();
            pod["seq"] = json!(1_000_000 + seq);
            (format!("{seq:08}-{key}"), pod)
        })
        .chain([(key.to_owned(), own.clone())])
        .collect();
    let db = json!({"a": {"seq": 0, "ip": "10.0.0.1"}, "b": {"seq": 1, "ip": "10.0.0.2"}});
    json!({"key": key, "pods": pods, "dependencies": {"db": db}})
}
