//! The command line: sources of a configuration, and their errors.

use std::fs;

use anyhow::ensure;
use ochopod_tests::{Pilot, PilotBuilder, Result, namespaces};
use serde_json::json;

use crate::pilot_env::{PilotEnv, sh};

/// A valid configuration, one line of which is a template.
const VALID: &str = r#"{
    // JSON5, too
    consul: "127.0.0.1:1",
    "preStart": "echo {{ .GREETING | default "hello" }}",
}"#;

/// Runs to the exit with these words and no configuration.
async fn run(pilot_env: &PilotEnv, words: &[&str]) -> Result<(i32, Pilot)> {
    ended(pilot_env, words, |pilot| pilot).await
}

async fn ended(
    pilot_env: &PilotEnv,
    words: &[&str],
    complete: impl FnOnce(PilotBuilder) -> PilotBuilder,
) -> Result<(i32, Pilot)> {
    let directory = pilot_env.scratch().join(uuid());
    let pilot = PilotBuilder::new(&directory).flags(words.iter().copied());
    let mut pilot = complete(pilot).start()?;
    Ok((pilot.exit_code().await?, pilot))
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("run-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn a_configuration_is_a_file_its_text_or_a_variable() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let file = pilot_env.scratch().join("app.json");
    fs::write(&file, VALID)?;
    let path = file.display().to_string();
    let url = format!("file://{path}");
    for (words, variable) in [
        (vec!["-config", &path, "true"], None),
        (vec!["--config", &url, "true"], None),
        (vec!["-config", VALID, "true"], None),
        (vec!["true"], Some(VALID.to_owned())),
        (vec!["true"], Some(url.clone())),
        (vec!["-config", &url, "true"], Some("{ nonsense".to_owned())),
    ] {
        let set = |pilot: PilotBuilder| match &variable {
            Some(text) => pilot.env("CONTAINERPILOT", text),
            None => pilot,
        };
        let (code, pilot) = ended(&pilot_env, &words, set).await?;
        ensure!(code == 0, "{words:?} with {variable:?} ended with {code}");
        ensure!(pilot.output()?.contains("hello"), "{words:?} with {variable:?} said {}", pilot.output()?);
    }
    Ok(())
}

#[tokio::test]
async fn without_a_configuration_there_is_nothing_to_do() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let (code, pilot) = run(&pilot_env, &["true"]).await?;
    ensure!(code == 64 && pilot.console()?.contains("-config"), "it ended with {code}: {}", pilot.console()?);
    for missing in ["file:///no/such/file", "/no/such/file"] {
        let (code, pilot) = run(&pilot_env, &["-config", missing, "true"]).await?;
        ensure!(code == 64 && pilot.console()?.contains("/no/such/file"), "{code}: {}", pilot.console()?);
    }
    Ok(())
}

#[tokio::test]
async fn all_errors_are_reported_together_with_their_positions() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let bad = "{\n  \"consul\": \"c:8500\",\n  \"servces\": [],\n  \"services\": [\n    { \"name\": \"app\", \"port\": 70000, \
               \"poll\": 0, \"ttl\": 5, \"interfaces\": \"lo\" }\n  ],\n  \"tasks\": [{ \"command\": \"true\" }],\n  \
               \"stopTimeout\": \"soon\"\n}";
    for words in [&["-config", bad, "true"][..], &["check", "-config", bad], &["-config", bad]] {
        let (code, pilot) = run(&pilot_env, words).await?;
        ensure!(code == 64, "it ended with {code}");
        let console = pilot.console()?;
        for part in ["3:3", "servces", "5:30", "70000", "poll", "frequency", "8:18", "soon"] {
            ensure!(console.contains(part), "{part} is not in {console}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn check_validates_and_starts_nothing() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text = json!({ "consul": "127.0.0.1:1", "preStart": sh("touch started"), "services": [] }).to_string();
    let (code, pilot) = run(&pilot_env, &["check", "-config", &text]).await?;
    ensure!(code == 0, "it ended with {code}: {}", pilot.console()?);
    let (code, _) = run(&pilot_env, &["check", "-config", &text, "true"]).await?;
    ensure!(code == 64, "with an application it ended with {code}");
    ensure!(!pilot.directory().join("started").exists(), "it started something");
    let (code, _) = run(&pilot_env, &["-config", &text, "check"]).await?;
    ensure!(code == 127, "after the flags it is an application, which ended with {code}");
    for bad in [
        "{}",
        "{ \"consul\": ",
        "{{ .X",
        "file:///no/such/file",
        "{ \"consul\": \"x\", \"etcd\": { \"endpoints\": [\"http://y\"] } }",
    ] {
        let (code, pilot) = run(&pilot_env, &["check", "-config", bad]).await?;
        ensure!(code == 64 && !pilot.console()?.is_empty(), "{bad} ended with {code}: {}", pilot.console()?);
    }
    Ok(())
}

#[tokio::test]
async fn a_template_is_shown_or_written_and_its_result_not_looked_at() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let text =
        "no JSON: {{ .NAME }}{{ if .MISSING }} never{{ end }}{{ range split \":\" .PARTS }} <{{ . }}>{{ end }}\n";
    let expected = "no JSON: a=b=c <x> <y>\n";
    let set = |pilot: PilotBuilder| pilot.env("NAME", "a=b=c").env("PARTS", "x:y");
    let (code, pilot) = ended(&pilot_env, &["-template", "-config", text], set).await?;
    ensure!(code == 0 && pilot.output()? == expected, "it ended with {code}: {}", pilot.log()?);
    let (code, pilot) = ended(&pilot_env, &["-config", text, "-template", "-out", "-"], set).await?;
    ensure!(code == 0 && pilot.output()? == expected, "it ended with {code}: {}", pilot.log()?);

    let out = pilot_env.scratch().join("out");
    let url = format!("file://{}", out.display());
    let (code, pilot) = ended(&pilot_env, &["-template", "-out", &url, "-config", text], set).await?;
    ensure!(code == 0 && pilot.output()?.is_empty(), "it ended with {code}: {}", pilot.log()?);
    ensure!(fs::read_to_string(&out)? == expected, "the file has something else");
    for bad in [["-template", "-config", "{{ .X"], ["-template", "-config", "{{ nope .X }}"]] {
        let (code, pilot) = run(&pilot_env, &bad).await?;
        ensure!(code == 64 && !pilot.console()?.is_empty(), "{bad:?} ended with {code}: {}", pilot.log()?);
    }
    let (code, _) = run(&pilot_env, &["-template", "-out", "/not/a/url", "-config", text]).await?;
    ensure!(code == 64, "a bad -out ended with {code}");
    Ok(())
}

#[tokio::test]
async fn output_that_cannot_be_written_is_an_error() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let full = |pilot: PilotBuilder| pilot.within(namespaces::shell("exec \"$@\" >/dev/full"));
    // Without a line feed at its end, the text is in a buffer until it is flushed.
    let (code, pilot) = ended(&pilot_env, &["-template", "-config", "{{ .TEXT }} without line feed"], full).await?;
    let console = pilot.console()?;
    ensure!(code == 64 && console.contains("cannot write standard output"), "it ended with {code}: {console}");
    Ok(())
}

#[tokio::test]
async fn the_version_is_two_lines() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let (code, pilot) = run(&pilot_env, &["-version"]).await?;
    let output = pilot.output()?;
    let lines: Vec<&str> = output.lines().collect();
    ensure!(code == 0 && lines.len() == 2, "it ended with {code}: {output}");
    ensure!(lines[0] == format!("Version: {}", env!("CARGO_PKG_VERSION")), "unexpected output {output}");
    ensure!(lines[1].starts_with("GitHash: "), "unexpected output {output}");
    Ok(())
}

#[tokio::test]
async fn bad_usage_is_64_and_help_is_an_answer() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for words in [&["-nope"][..], &["-config"]] {
        let (code, pilot) = run(&pilot_env, words).await?;
        ensure!(code == 64 && !pilot.console()?.is_empty(), "{words:?} ended with {code}");
    }
    let (code, pilot) = run(&pilot_env, &["-h"]).await?;
    ensure!(code == 0 && pilot.output()?.contains("config"), "it ended with {code}: {}", pilot.log()?);
    Ok(())
}

#[tokio::test]
async fn the_applications_words_are_templates_and_its_flags_its_own() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let shown = |words: &[&'static str]| [&["-config", VALID, "printf", "<%s>"][..], words].concat();
    let set = |pilot: PilotBuilder| pilot.env("WHO", "a b");
    let (code, pilot) = ended(&pilot_env, &shown(&["{{ .WHO }}", "-config", "x", "--", "-version"]), set).await?;
    ensure!(code == 0 && pilot.output()?.contains("<a b><-config><x><--><-version>"), "{code}: {}", pilot.log()?);
    let (code, pilot) = ended(&pilot_env, &shown(&["{{ .WHO }}", "{{ .WHO }"]), set).await?;
    ensure!(code == 0 && pilot.output()?.contains("<{{ .WHO }}><{{ .WHO }>"), "{code}: {}", pilot.log()?);
    Ok(())
}

#[tokio::test]
async fn an_unusable_registry_is_reported_with_line_and_column() -> Result {
    let pilot_env = PilotEnv::new().await?;
    for (bad, expected) in [
        ("{consul: ':8500'}", "1:10: consul: invalid value \":8500\", expected HOST:PORT or unix://PATH"),
        (
            "{\n consul: {address: 'https://c:1', tls: {\n  cafile: '/no/such'}}}",
            "3:11: consul.tls.cafile: invalid value \"/no/such\" (",
        ),
        ("{etcd: {endpoints: ['http://:1']}}", "1:21: etcd.endpoints[0]: invalid value 'http://:1', expected a URL"),
        (
            "{etcd: {endpoints: 'http://e:1', credentials: '/no/such'}}",
            "1:47: etcd.credentials: invalid value \"/no/such\" (",
        ),
    ] {
        for words in [&["check", "-config", bad][..], &["-config", bad, "true"]] {
            let (code, pilot) = run(&pilot_env, words).await?;
            let console = pilot.console()?;
            ensure!(code == 64 && console.contains(expected), "{words:?} ended with {code}: {console}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_small_binary_has_the_same_command_without_its_name() -> Result {
    let pilot_env = PilotEnv::new().await?;
    let binary = ochopod_tests::artifacts::ochopod_pilot()?;
    let small = |pilot: PilotBuilder| pilot.standalone(&binary);
    let (code, pilot) = ended(&pilot_env, &["-config", VALID, "sh", "-c", "echo {{ .TEXT }}; exit 7"], |pilot| {
        small(pilot).env("TEXT", "rendered")
    })
    .await?;
    ensure!(code == 7, "it ended with {code}: {}", pilot.log()?);
    let output = pilot.output()?;
    ensure!(output.contains("hello") && output.contains("rendered"), "unexpected output {output}");
    let (code, pilot) = ended(&pilot_env, &["check", "-config", "{ nonsense"], small).await?;
    let console = pilot.console()?;
    ensure!(code == 64 && console.starts_with("ochopod-pilot: "), "it ended with {code}: {console}");
    let (code, pilot) = ended(&pilot_env, &["-nope"], small).await?;
    let console = pilot.console()?;
    ensure!(code == 64 && console.contains("-nope"), "it ended with {code}: {console}");
    let (code, pilot) = ended(&pilot_env, &["--help"], small).await?;
    let output = pilot.output()?;
    ensure!(code == 0 && output.contains("Usage: ochopod-pilot"), "it ended with {code}: {output}");
    Ok(())
}
