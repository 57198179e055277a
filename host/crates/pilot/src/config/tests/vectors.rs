//! Vectors of ContainerPilot's own tests.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn cases<'a>(vectors: &'a Value, name: &str) -> &'a [Value] {
    let cases = vectors[name].as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

fn every_config() -> Value {
    vectors(include_str!("../../../../../../tests/vectors/config.json"))
}

/// Renders the variables of the vectors.
fn rendered(text: &str) -> String {
    ["{{.TEST}}", "{{.ENV_NOT_FOUND}}", "{{ .NO_SUCH_KEY }}"]
        .iter()
        .zip(["HELLO", "", ""])
        .fold(text.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

#[test]
fn the_full_configuration_is_read() {
    let vectors = every_config();
    let text = rendered(&vectors["full"]["config"].to_string());
    let config = read(&text.replace("\"ethwe\"", "\"ethwe\", \"inet\"")).unwrap();
    let command = |command: &CommandLine| {
        json!([[&command.program].into_iter().collect::<Vec<_>>(), command.arguments.iter().collect()].concat())
    };
    let hook = |hook: &Option<CommandLine>| hook.as_ref().map(command);
    let read = json!({
        "services": config.services.len(),
        "backends": config.backends.len(),
        "services[0].tags": config.services[0].tags,
        "services[1].tags": if config.services[1].tags.is_empty() { json!(null) } else { json!("some") },
        "services[0].ttl": config.services[0].ttl.as_secs(),
        "services[1].ttl": config.services[1].ttl.as_secs(),
        "backends[0].tag": config.backends[0].tag.as_deref().unwrap_or_default(),
        "backends[1].tag": config.backends[1].tag.as_deref().unwrap_or_default(),
        "preStart": hook(&config.pre_start),
        "preStop": hook(&config.pre_stop),
        "postStop": hook(&config.post_stop),
        "backends[0].onChange": command(&config.backends[0].on_change),
        "backends[1].onChange": command(&config.backends[1].on_change),
    });
    assert_eq!(read, vectors["full"]["expect"]);
    assert_eq!(config.stop_timeout, Some(Duration::from_secs(5)));
    assert_eq!(
        config.services[0].health,
        HealthCheck::Command(CommandLine {
            program: "/bin/to/healthcheck/for/service/A.sh".to_owned(),
            arguments: Vec::new()
        })
    );
    assert_eq!(config.services[0].limit, Duration::from_secs(30), "default timeout of a check is its poll interval");
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(
        config.warnings[0]
            .ends_with("services[0].ttl: 19 does not exceed poll (30): the registration may expire between checks")
    );
}

#[test]
fn configurations_that_containerpilot_rejects_are_rejected_for_the_same_reason() {
    for case in cases(&every_config(), "errors") {
        let env = Env::default();
        let source = match (case.get("config_flag"), case.get("config_text"), &case["config"]) {
            (Some(flag), ..) => ConfigSource::find(flag.as_str(), &env),
            (None, Some(text), _) => ConfigSource::find(text.as_str(), &env),
            (None, None, Value::Null) => ConfigSource::find(None, &env),
            (None, None, config) => ConfigSource::find(Some(&config.to_string()), &env),
        };
        let text = source.and_then(|source| source.read()).map(|text| rendered(&text));
        let (error, positions) = match text.as_deref().map(read) {
            Err(error) => (error.to_string(), Vec::new()),
            Ok(Err(error)) => (error.to_string(), error.errors.iter().map(|error| error.at).collect()),
            Ok(Ok(config)) => panic!("{case}: {config:?}"),
        };
        if let Some(expected) = case["error_contains"].as_str() {
            assert!(error.contains(expected), "{case}: {error}");
        }
        if let [line, column] = case["error_at"].as_array().map_or(&[][..], Vec::as_slice) {
            let found = positions.iter().any(|at| json!([at.line, at.column]) == json!([line, column]));
            assert!(found, "{case}: {error}");
        }
    }
}

#[test]
fn configurations_that_containerpilot_accepts_are_accepted() {
    for case in cases(&every_config(), "ok") {
        let config = read(&case["config"].to_string()).unwrap_or_else(|error| panic!("{case}: {error}"));
        if case["name"] == "telemetry makes a service" {
            let service = config.telemetry.unwrap().service();
            assert_eq!((&*service.name, service.poll.as_secs(), service.ttl.as_secs()), ("containerpilot", 5, 15));
        }
    }
}

#[test]
fn names_that_containerpilot_warns_of_have_a_warning() {
    let vectors = &every_config()["names_2_2_up"];
    for (kind, warnings) in [("valid", 0), ("warn_only", 1)] {
        for name in cases(vectors, kind) {
            let config = config(&format!("services: [{{name: {name}, port: 1, poll: 1, ttl: 2}}]"));
            assert_eq!(config.warnings.len(), warnings, "{name}: {:?}", config.warnings);
        }
    }
}

#[test]
fn commands_are_split_as_by_containerpilot() {
    for case in cases(&vectors(include_str!("../../../../../../tests/vectors/commands.json")), "cases") {
        let given = &case["json"];
        let expected = match (&case["argv"], given) {
            (Value::Array(words), _) => Some(json!(words)),
            (_, Value::Array(words)) if *words == [json!(true)] => Some(json!(["true"])),
            (_, Value::Array(words)) if words.len() == 2 => Some(json!(["/bin/echo", "5"])),
            _ => None,
        };
        let text =
            format!("{{consul: 'a:1', preStop: {given}, backends: [{{name: 'b', poll: 1, onChange: {given}}}]}}");
        match (read(&text), expected) {
            (Ok(config), Some(expected)) => {
                let words: Vec<_> = expected.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
                assert_eq!(line(config.pre_stop.as_ref().unwrap()), words.join("|"));
                assert_eq!(line(&config.backends[0].on_change), words.join("|"));
            }
            (Err(error), None) => {
                let error = error.to_string();
                let reason = case["v2_7"].as_str().unwrap_or_default().strip_prefix("error: ").unwrap_or_default();
                assert!(error.contains(reason) && error.contains("backends[0].onChange: "), "{case}: {error}");
                assert_eq!(error.contains("preStop: "), !given.is_null(), "{case}: {error}");
            }
            (read, _) => panic!("{case}: {read:?}"),
        }
    }
}

#[test]
fn durations_are_those_of_containerpilot() {
    let vectors = vectors(include_str!("../../../../../../tests/vectors/durations.json"));
    let task = |frequency: &Value, timeout: &Value| {
        let timeout = if timeout.is_null() { String::new() } else { format!(", timeout: {timeout}") };
        read(&format!("{{consul: 'a:1', tasks: [{{command: 'x', frequency: {frequency}{timeout}}}]}}"))
            .map(|mut config| config.tasks.remove(0))
            .map_err(|error| error.to_string())
    };
    let time = |case: &Value, s: &str, ns: &str| {
        Duration::from_secs(case[s].as_u64().unwrap_or_default())
            + Duration::from_nanos(case[ns].as_u64().unwrap_or_default())
    };
    for case in cases(&vectors, "cases") {
        match task(&case["in"], &Value::Null) {
            Ok(task) => assert_eq!(task.frequency, time(case, "s", "ns"), "{case}"),
            Err(error) if case["error"].is_null() => {
                assert!(time(case, "s", "ns") < Duration::from_millis(1), "{case}: {error}");
                assert!(error.contains("(below 1 ms)"), "{case}: {error}");
            }
            Err(error) => assert!(error.contains(case["error"].as_str().unwrap()), "{case}: {error}"),
        }
    }
    for case in cases(&vectors, "task") {
        match task(&case["frequency"], &case["timeout"]) {
            Ok(task) => {
                assert_eq!(task.frequency, time(case, "freq_s", "freq_ns"), "{case}");
                assert_eq!(task.limit, time(case, "timeout_s", "timeout_ns"), "{case}");
            }
            Err(error) => {
                let which = if case["timeout"].is_null() { "tasks[0].frequency" } else { "tasks[0].timeout" };
                assert!(case.get("error").is_some() && error.contains(which), "{case}: {error}");
            }
        }
    }
    for case in cases(&vectors, "command_timeout") {
        let text =
            format!("{{consul: 'a:1', backends: [{{name: 'b', poll: 7, onChange: 'x', timeout: {}}}]}}", case["in"]);
        match read(&text) {
            Ok(config) if case["meaning"] == "no timeout" => {
                assert_eq!(config.backends[0].limit.as_secs(), 7, "{case}");
            }
            Ok(config) => assert_eq!(config.backends[0].limit, time(case, "s", "ns"), "{case}"),
            Err(error) => assert!(error.to_string().contains(case["error"].as_str().unwrap()), "{case}: {error}"),
        }
    }
}

#[test]
fn restart_limits_match_containerpilot() {
    for case in cases(&vectors(include_str!("../../../../../../tests/vectors/coprocesses.json")), "parse") {
        match read(&json!({"consul": "a:1", "coprocesses": [case["config"]]}).to_string()) {
            Ok(config) => {
                let Coprocess { name, restarts, .. } = &config.coprocesses[0];
                let limit = match restarts {
                    RestartLimit::AtMost(most) => json!(most),
                    RestartLimit::Unlimited => json!("unlimited"),
                };
                assert!(case.get("limit").is_none_or(|expected| *expected == limit), "{case}: {limit}");
                assert!(case.get("name").is_none_or(|expected| expected == name), "{case}: {name}");
            }
            Err(error) => assert!(case.get("error").is_some(), "{case}: {error}"),
        }
    }
}

#[test]
fn logging_settings_match_containerpilot() {
    let vectors = vectors(include_str!("../../../../../../tests/vectors/logging.json"));
    assert_eq!(config("").logging, LoggingConfig::default());
    for (list, key) in [("levels", "level"), ("formats", "format"), ("outputs", "output")] {
        for word in cases(&vectors, list) {
            let word = word.as_str().unwrap();
            let read = |word: &str| config(&format!("logging: {{{key}: '{word}'}}")).logging;
            assert_eq!(read(&word.to_lowercase()), read(&word.to_uppercase()), "{word}");
        }
    }
    for case in cases(&vectors, "errors") {
        let errors = errors(&format!("logging: {case}"));
        assert!(errors.len() == 1 && errors[0].contains(", expected a"), "{case}: {errors:?}");
    }
    let all = config("logging: {level: 'warning', format: 'JSON', output: 'StdErr'}").logging;
    assert_eq!(all, LoggingConfig { level: LogLevel::Warn, format: LogFormat::Json, output: LogOutput::Stderr });
}
