//! `/exec`: command lines and files reach the tool, and nothing else does.

use ochopod_lifecycle::Failure;
use ochopod_model::status::{Blame, ProcessState};

use super::*;

const MULTIPART: &str = "X-Shell: echo\r\nContent-Type: multipart/form-data; boundary=B\r\n";

fn part(disposition: &str, content: &str) -> String {
    format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

/// Sends a request that must reach the tool, which is run by `tool`.
async fn run(
    served: &mut TestServer,
    headers: &str,
    body: &str,
    tool: impl FnOnce(&ExecRequest) -> Result<ExecOutput, Failure>,
) -> ParsedReply {
    let mut runs = std::mem::replace(&mut served.runs, mpsc::channel(1).1);
    let runner = async {
        let run = runs.recv().await.unwrap();
        let result = tool(&run);
        run.reply.send(result).unwrap();
    };
    let (answer, ()) = timeout(TIMEOUT, async { tokio::join!(served.send("POST /exec", headers, body), runner) })
        .await
        .expect("the request reaches the tool");
    served.runs = runs;
    answer
}

#[tokio::test]
async fn tool_receives_its_arguments_and_its_output_is_returned() {
    let mut served = TestServer::start().await;
    let answer = run(&mut served, "X-Shell: echo  -n two  words\r\n", "", |run| {
        assert_eq!((run.name.as_str(), &run.arguments), ("echo", &["-n", "two", "words"].map(str::to_owned).to_vec()));
        assert!(run.uploads.is_none());
        Ok(ExecOutput { code: 3, stdout: vec!["a".to_owned(), "b".to_owned()] })
    });
    let answer = answer.await;
    assert_eq!((answer.status, answer.json()), (200, json!({"code": 3, "stdout": ["a", "b"]})));
    let failure = Failure { callback: Some("run"), blame: Blame::Plugin, message: "it trapped".to_owned() };
    let answer = run(&mut served, "X-Shell: echo\r\n", "", |_| Err(failure)).await;
    assert_eq!((answer.status, answer.error()), (500, "it trapped".to_owned()));
}

#[tokio::test]
async fn files_exist_under_safe_names_while_the_tool_runs() {
    let mut served = TestServer::start().await;
    let body = [
        part("name=\"conf.json\"; filename=\"x\"", "{}"),
        part("name=\"../../etc/passwd\"; filename=\"y\"", "root"),
        part("name=\"no file\"", "a plain field"),
    ];
    let body = format!("{}--B--\r\n", body.concat());
    let mut directory = std::path::PathBuf::new();
    let answer = run(&mut served, MULTIPART, &body, |run| {
        let uploads = run.uploads.as_ref().unwrap();
        directory = uploads.directory().to_owned();
        assert_eq!(uploads.names, ["conf.json", "passwd"]);
        assert_eq!(std::fs::read_to_string(directory.join("conf.json")).unwrap(), "{}");
        assert_eq!(std::fs::read_to_string(directory.join("passwd")).unwrap(), "root");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2);
        Ok(ExecOutput { code: 0, stdout: vec![] })
    });
    assert_eq!(answer.await.status, 200);
    let gone = async {
        while directory.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, gone).await.expect("nothing is left behind");
}

#[tokio::test]
async fn invalid_tool_request_is_rejected() {
    let mut served = TestServer::start().await;
    assert_eq!(served.post("/exec", "").await.status, 400);
    for (headers, status) in [
        ("X-Shell: rm -rf\r\n", 404),
        ("X-Shell:\r\n", 400),
        ("X-Shell:   \r\n", 400),
        ("X-Shell: echo\r\nX-Shell: echo\r\n", 400),
        ("X-Shell: \u{e9}cho\r\n", 400),
        ("X-Shell: echo\r\nContent-Type: multipart/form-data\r\n", 400),
    ] {
        let answer = served.send("POST /exec", headers, "").await;
        assert_eq!(answer.status, status, "{headers}");
        assert!(!answer.error().is_empty());
    }
    let file = |name: &str| part(&format!("name=\"{name}\"; filename=\"{name}\""), "x");
    let bodies = [
        String::new(),
        "no boundary".to_owned(),
        "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\nunfinished".to_owned(),
        format!("{}--B--\r\n", file("..")),
        format!("{}--B--\r\n", file("dir/")),
        format!("{}{}--B--\r\n", file("a"), file("b/a")),
        format!("{}--B--\r\n", file(&"x".repeat(300))),
        format!("{}--B--\r\n", (0..65).map(|n| file(&n.to_string())).collect::<String>()),
    ];
    for body in bodies {
        assert_eq!(served.send("POST /exec", MULTIPART, &body).await.status, 400, "{body:.100}");
    }
    assert_eq!(served.send("POST /exec", MULTIPART, "x".repeat(5 * 1024 * 1024)).await.status, 413);
    assert!(served.runs.try_recv().is_err());
    served.runs.close();
    assert_eq!(served.send("POST /exec", "X-Shell: echo\r\n", "").await.status, 410);
}

#[tokio::test]
async fn lost_run_is_500() {
    let mut served = TestServer::start().await;
    let mut runs = std::mem::replace(&mut served.runs, mpsc::channel(1).1);
    let lose = async { drop(runs.recv().await) };
    let (answer, ()) = tokio::join!(served.send("POST /exec", "X-Shell: echo\r\n", ""), lose);
    assert_eq!(answer.status, 500, "{answer:?}");
}

#[tokio::test]
async fn no_tool_runs_in_a_dead_or_stopping_pod() {
    let mut served = TestServer::start().await;
    served.lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    let answer = served.send("POST /exec", "X-Shell: echo\r\n", "").await;
    assert_eq!((answer.status, answer.error()), (410, "pod is dead".to_owned()));
    assert_eq!(served.send("POST /exec", "X-Shell: rm\r\n", "").await.status, 404, "the unknown tool comes first");
    served.lifecycle.send_modify(|report| report.process = ProcessState::Running);
    served.pod_shutdown.cancel();
    let answer = served.send("POST /exec", "X-Shell: echo\r\n", "").await;
    assert_eq!((answer.status, answer.error()), (410, "pod is shutting down".to_owned()));
    assert!(served.runs.try_recv().is_err());
}

#[tokio::test]
async fn eight_tools_run_at_a_time_abandoned_ones_included() {
    let mut served = TestServer::start().await;
    let request = "POST /exec HTTP/1.1\r\nHost: pod\r\nX-Shell: echo\r\nContent-Length: 0\r\n\r\n";
    let mut running = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        running.push(timeout(TIMEOUT, served.runs.recv()).await.unwrap().unwrap());
    }
    let answer = served.send("POST /exec", "X-Shell: echo\r\n", "").await;
    assert_eq!((answer.status, answer.error()), (503, "tool limit reached (8 running): try again later".to_owned()));
    drop(running.pop());
    let output = ExecOutput { code: 0, stdout: vec![] };
    assert_eq!(run(&mut served, "X-Shell: echo\r\n", "", |_| Ok(output)).await.status, 200);
}
