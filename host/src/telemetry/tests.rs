use super::*;

fn built(level: LevelFilter, format: Format, file: Option<&LogFile>) -> (Log, impl Subscriber + Send + Sync + 'static) {
    let (log, subscriber, missed) = Log::build(level, format, file).unwrap();
    assert_eq!(missed, None);
    (log, subscriber)
}

#[test]
fn one_event_is_one_line_that_names_its_pod_whatever_the_message_holds() {
    let (log, subscriber) = built(LevelFilter::INFO, Format::Text, None);
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
fn other_crates_are_heard_from_warnings_on_and_the_store_s_client_from_errors_on() {
    let (log, subscriber) = built(LevelFilter::DEBUG, Format::Text, None);
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!("ours");
        tracing::info!(target: "zookeeper_client", "chatter");
        tracing::info!(target: "hyper", "chatter");
        tracing::warn!(target: "hyper", "trouble");
        tracing::warn!(target: "zookeeper_client::session", "again");
        tracing::error!(target: "zookeeper_client::session", "failure");
    });
    let lines = log.tail().lines();
    let ends = lines.iter().zip(["ours", "trouble", "failure"]).all(|(line, end)| line.ends_with(end));
    assert!(lines.len() == 3 && ends, "{lines:?}");
}

#[test]
fn json_lines_are_json_with_the_pod() {
    let (log, subscriber) = built(LevelFilter::INFO, Format::Json, None);
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
fn the_log_file_answers_with_what_others_wrote_too_also_right_after_it_was_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod.log");
    let (log, subscriber) = built(LevelFilter::INFO, Format::Text, Some(&LogFile { path: path.clone(), asked: true }));
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
        assert!(size <= KEPT && size > KEPT * 9 / 10, "{size}");
        assert!(lines.last().unwrap().ends_with("0399") && lines[0].contains(" - INFO - 0"), "{lines:?}");
    });
}

#[test]
fn an_unwritable_file_is_an_error_when_it_was_asked_for_and_else_a_remark() {
    let bad = LogFile { path: "/proc/self/nothing/pod.log".into(), asked: true };
    let error = Log::build(LevelFilter::INFO, Format::Text, Some(&bad)).err().unwrap();
    assert_eq!(error.to_string(), "cannot write the log file /proc/self/nothing/pod.log");
    let missed = Log::build(LevelFilter::INFO, Format::Text, Some(&LogFile { asked: false, ..bad })).unwrap().2;
    assert!(missed.unwrap().starts_with("/proc/self/nothing/pod.log: "));
}
