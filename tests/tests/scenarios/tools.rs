//! `POST /exec`.

use anyhow::ensure;
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Reply, Result, TestEnv, artifacts, eventually};
use serde_json::json;

use crate::pod;

async fn tooled(env: &TestEnv, flags: &[&str]) -> Result<Pod> {
    let pod = env.pod(&artifacts::plugin("tool")?).flags(flags.iter().copied()).start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    Ok(pod)
}

async fn exec(pod: &Pod, line: &str) -> Result<Reply> {
    pod.client().send(Method::POST, "/exec", &[("x-shell", line)], Bytes::new()).await
}

#[tokio::test]
async fn a_tool_answers_with_its_code_and_lines() -> Result {
    let env = TestEnv::new().await?;
    let pod = tooled(&env, &[]).await?;
    let reply = exec(&pod, "echo one two").await?.json(200)?;
    ensure!(reply == json!({ "code": 0, "stdout": ["your command was one two"] }), "unexpected output {reply}");
    Ok(())
}

#[tokio::test]
async fn the_header_is_required_and_the_tool_must_exist() -> Result {
    let env = TestEnv::new().await?;
    let pod = tooled(&env, &[]).await?;
    pod.client().post("/exec").await?.error(400)?;
    exec(&pod, "").await?.error(400)?;
    let missing = exec(&pod, "format c:").await?.error(404)?;
    ensure!(missing.contains("format"), "unexpected output {missing}");
    Ok(())
}

#[tokio::test]
async fn programs_need_a_grant_and_the_denial_names_it() -> Result {
    let env = TestEnv::new().await?;
    let pod = tooled(&env, &[]).await?;
    let denied = exec(&pod, "shell id -u").await?.json(200)?;
    ensure!(denied["code"] == 1, "unexpected output {denied}");
    ensure!(denied["stdout"].to_string().contains("--run /bin/sh"), "unexpected output {denied}");
    let pod = tooled(&TestEnv::new().await?, &["--run", "/bin/sh"]).await?;
    let granted = exec(&pod, "shell echo out; echo more; exit 3").await?.json(200)?;
    ensure!(granted == json!({ "code": 3, "stdout": ["out", "more"] }), "unexpected output {granted}");
    Ok(())
}

#[tokio::test]
async fn uploads_that_are_no_multipart_are_refused() -> Result {
    let env = TestEnv::new().await?;
    let pod = tooled(&env, &[]).await?;
    let kinds = ["multipart/form-data", "multipart/form-data; boundary=x"];
    for kind in kinds {
        let headers = [("x-shell", "echo"), ("content-type", kind)];
        let reply = pod.client().send(Method::POST, "/exec", &headers, Bytes::from_static(b"--y\r\nbroken")).await?;
        reply.error(400)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_tool_reads_what_was_uploaded_and_nothing_stays() -> Result {
    let env = TestEnv::new().await?;
    let pod = pod(&env).start()?;
    eventually("it answers", DEFAULT_TIMEOUT, async || pod.client().info().await).await?;
    let part = |name: &str, content: &str| {
        format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let body = part("one.txt", "12345") + &part("two", "") + "--cut--\r\n";
    let headers = [("x-shell", "report a b"), ("content-type", "multipart/form-data; boundary=cut")];
    let reply = pod.client().send(Method::POST, "/exec", &headers, body.into()).await?.json(200)?;
    ensure!(reply == json!({ "code": 0, "stdout": ["a", "b", "one.txt 5", "two 0"] }), "unexpected output {reply}");
    let hostile = part("../../etc/escaped", "x") + "--cut--\r\n";
    let headers = [("x-shell", "report"), ("content-type", "multipart/form-data; boundary=cut")];
    let reply = pod.client().send(Method::POST, "/exec", &headers, hostile.into()).await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    ensure!(reply.status == 400 || !text.contains(".."), "a name with a path was taken: {text}");
    let after = exec(&pod, "report").await?.json(200)?;
    ensure!(after == json!({ "code": 0, "stdout": [] }), "uploads stayed: {after}");
    Ok(())
}
