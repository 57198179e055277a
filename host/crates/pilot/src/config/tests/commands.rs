//! Warnings about shell syntax in commands.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

const EXPECTED: &str = "in a command that is split at blanks and run without a shell; expected [\"/bin/sh\", \"-c\", \"…\"] if a shell is meant";

#[test]
fn every_command_with_shell_syntax_has_a_warning_at_its_position() {
    let config = config(
        "
preStart: 'a | b', preStop: 'a; b', postStop: 'a > b',
services: [{name: 'web', port: 1, poll: 1, ttl: 2, health: 'echo hi | grep hi'}],
backends: [{name: 'db', poll: 1, onChange: 'echo $DB'}],
tasks: [{name: 't', frequency: 1, command: 'rm *.log'}],
coprocesses: [{name: 'c', command: 'a & b'}],
telemetry: {sensors: [{name: 'm', help: 'h', type: 'gauge', poll: 1, check: 'awk \"{print}\" < x'}]}",
    );
    let has = |position: &str, parts: &str| format!("{position}: shell syntax ({parts}) {EXPECTED}");
    assert_eq!(
        config.warnings,
        [
            has("2:11: preStart", "|"),
            has("2:29: preStop", ";"),
            has("2:47: postStop", ">"),
            has("3:60: services[0].health", "|"),
            has("4:44: backends[0].onChange", "$"),
            has("5:44: tasks[0].command", "*"),
            has("6:36: coprocesses[0].command", "&"),
            has("7:77: telemetry.sensors[0].check", "\" <"),
        ]
    );
    let text = config.warnings.join("\n");
    assert!(!text.contains("DB") && !text.contains("grep"), "a command may hold secrets: {text}");
}

#[test]
fn lists_of_words_and_plain_commands_have_no_warning() {
    for command in ["['/bin/sh', '-c', 'a | b && $C']", "'/bin/check --port 80'", "'curl http://h:1/x?a=1&b=2'"] {
        let config = config(&format!("preStart: {command}, tasks: [{{frequency: 1, command: {command}}}]"));
        assert!(config.warnings.is_empty(), "{command}: {:?}", config.warnings);
    }
}

#[test]
fn builtin_has_a_warning_unless_a_program_of_its_name_is_in_the_search_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cd");
    let warnings = || {
        let variables = [("PATH", directory.path().to_str().unwrap())];
        read_with("{consul: 'a:1', preStop: 'cd /x'}", &variables).unwrap().warnings
    };
    assert_eq!(warnings(), [format!("1:26: preStop: shell syntax (cd) {EXPECTED}")]);
    fs::write(&path, "").unwrap();
    assert_eq!(warnings().len(), 1, "not executable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(warnings(), [""; 0]);
}
