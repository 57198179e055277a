use super::*;

fn built(
    level: LevelFilter,
    format: PodLogFormat,
    file: Option<&LogFile>,
) -> (PodLog, impl Subscriber + Send + Sync + 'static) {
    let (log, subscriber, file_error) = PodLog::build(level, format, file).unwrap();
    assert_eq!(file_error, None);
    (log, subscriber)
}

#[test]
fn any_event_is_one_line_with_its_pod() {
    let (log, subscriber) = built(LevelFilter::INFO, PodLogFormat::Text, None);
    tracing::subscriber::with_default(subscriber, || {
        let _pod = tracing::info_span!("pod", pod = "127.0.0.2").entered();
        tracing::warn!(pid = 7, "two\nlines \u{1b}[31m");
        tracing::debug!("too fine");
    });
    let lines = log.tail().lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (time, rest) = lines[0].split_once(" - ").unwrap();
    assert!(time.ends_with('Z') && time.starts_with("20"), "{time}");
    assert!(rest.starts_with("WARNING - pod=\"127.0.0.2\" : two\\nlines "), "{rest}");
    assert!(rest.ends_with("pid=7"), "{rest}");
}

#[test]
fn other_crates_log_warnings_and_the_zookeeper_client_errors() {
    let (log, subscriber) = built(LevelFilter::DEBUG, PodLogFormat::Text, None);
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!("ours");
        tracing::info!(target: "ochopod::app", "of the binary");
        tracing::info!(target: "ochopod_leader::actor", "of a crate");
        tracing::info!(target: "zookeeper_client", "chatter");
        tracing::info!(target: "hyper", "chatter");
        tracing::warn!(target: "hyper", "trouble");
        tracing::warn!(target: "zookeeper_client::session", "again");
        tracing::error!(target: "wasmtime_wasi_http::p2::error", "caused by a guest");
        tracing::error!(target: "zookeeper_client::session", "failure");
    });
    let lines = log.tail().lines();
    let ends = lines
        .iter()
        .zip(["ours", "of the binary", "of a crate", "trouble", "failure"])
        .all(|(line, end)| line.ends_with(end));
    assert!(lines.len() == 5 && ends, "{lines:?}");
}

#[test]
fn json_lines_have_the_pod() {
    let (log, subscriber) = built(LevelFilter::INFO, PodLogFormat::Json, None);
    tracing::subscriber::with_default(subscriber, || {
        let _pod = tracing::info_span!("pod", pod = "127.0.0.2").entered();
        tracing::info!("a \"quoted\"\nmessage");
    });
    let lines = log.tail().lines();
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"a \"quoted\"\nmessage".into()));
    assert_eq!(line["span"]["pod"], "127.0.0.2");
}

#[test]
fn tail_of_the_log_file_has_lines_of_other_writers_also_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod.log");
    let (log, subscriber) =
        built(LevelFilter::INFO, PodLogFormat::Text, Some(&LogFile { path: path.clone(), explicit: true }));
    let emit = |text: &str| tracing::info!("{text}");
    tracing::subscriber::with_default(subscriber, || {
        emit("ours");
        log.flush(Duration::from_secs(10));
        std::io::Write::write_all(
            &mut std::fs::OpenOptions::new().append(true).open(&path).unwrap(),
            b"of the sub-process \xff\n",
        )
        .unwrap();
        let lines = log.tail().lines();
        assert!(lines.len() == 2 && lines[0].ends_with("ours"), "{lines:?}");
        assert_eq!(lines[1], "of the sub-process \u{fffd}");

        (0..400).for_each(|n| emit(&format!("{n:0>60}")));
        log.flush(Duration::from_secs(10));
        let lines = log.tail().lines();
        let size: usize = lines.iter().map(String::len).sum();
        assert!(size <= RING_BYTES && size > RING_BYTES * 9 / 10, "{size}");
        assert!(lines.last().unwrap().ends_with("0399") && lines[0].contains(" - INFO - 0"), "{lines:?}");
    });
}

#[test]
fn unwritable_file_is_an_error_if_explicit_and_otherwise_disabled() {
    let bad = LogFile { path: "/proc/self/nothing/pod.log".into(), explicit: true };
    let error = PodLog::build(LevelFilter::INFO, PodLogFormat::Text, Some(&bad)).err().unwrap();
    assert_eq!(error.to_string(), "cannot write log file /proc/self/nothing/pod.log");
    let file_error =
        PodLog::build(LevelFilter::INFO, PodLogFormat::Text, Some(&LogFile { explicit: false, ..bad })).unwrap().2;
    assert!(file_error.unwrap().starts_with("/proc/self/nothing/pod.log: "));
}

#[test]
fn every_format_escapes_hidden_characters() {
    let hostile = "a\u{1b}[2K\u{9b}1A\u{7f}\u{202e}b\u{2066}\u{200e}\u{61c}c\u{2028}\u{2029}d\r\n2026 - ERROR - forged";
    for format in [PodLogFormat::Text, PodLogFormat::Json] {
        let (log, subscriber) = built(LevelFilter::INFO, format, None);
        tracing::subscriber::with_default(subscriber, || {
            let _pod = tracing::info_span!("pod", pod = hostile).entered();
            tracing::info!(reason = hostile, error = %hostile, "{hostile}");
        });
        let lines = log.tail().lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains(escape::is_hidden), "{lines:?}");
    }
}

#[test]
fn tail_returns_the_ring_while_the_file_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod.log");
    let (log, subscriber) =
        built(LevelFilter::INFO, PodLogFormat::Text, Some(&LogFile { path: path.clone(), explicit: true }));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("written");
        assert!(log.tail().lines().last().unwrap().ends_with("written"));
        // Another process moves the file and creates a directory in its place, so that writes fail.
        std::fs::rename(&path, directory.path().join("aside")).unwrap();
        std::fs::create_dir(&path).unwrap();
        tracing::info!("newer");
        tracing::info!("newest");
        log.flush(Duration::from_secs(10));
        let lines = log.tail().lines();
        assert!(lines.iter().any(|line| line.ends_with("newest")), "{lines:?}");
        let failures = lines.iter().filter(|line| line.starts_with("cannot write log file ")).count();
        assert_eq!(failures, 1, "{lines:?}");
        std::fs::remove_dir(&path).unwrap();
        tracing::info!("again");
        log.flush(Duration::from_secs(10));
        let lines = log.tail().lines();
        let ends: Vec<&str> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(ends, ["newer", "newest", "again"], "the file has the lines that it lacked");
    });
}
