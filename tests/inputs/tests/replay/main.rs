//! Guarantee 7: no input by network or file can crash the host: invalid input gets an error that names it.
//!
//! Each target of the fuzzer gets its corpus, which contains every input that caused a failure, and then mutations of
//! it. They are the same in each run.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may panic")]

mod mutation;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

use mutation::Mutation;

/// Calls a target with its whole corpus and with this number of mutations.
fn replay(target: &str, check: fn(&[u8]), mutations: usize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&directory).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut corpus: Vec<_> = files.map(|path| (fs::read(&path).expect("an input"), path)).collect();
    corpus.sort_by(|(_, one), (_, other)| one.cmp(other));
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    for (input, path) in &corpus {
        attempt(check, input, &path.display().to_string());
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(input, _)| input).collect();
    let mut mutation = Mutation::new(&inputs);
    for number in 0..mutations {
        attempt(check, &mutation.next(), &format!("mutation {number}"));
    }
}

/// Checks one input. A failure shows it, to be added to the corpus under a descriptive name.
fn attempt(check: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{name} breaks it: b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

#[test]
fn guarantee_7_where_zookeeper_is() {
    replay("address", ochopod_inputs::address, 20_000);
}

#[test]
fn guarantee_7_what_services_there_are() {
    replay("configuration", ochopod_inputs::configuration, 20_000);
}

#[test]
fn guarantee_7_bytes_of_a_connection() {
    replay("connection", ochopod_inputs::connection, 2_000);
}

#[test]
fn guarantee_7_what_a_model_depends_on() {
    replay("dependency", ochopod_inputs::dependency, 20_000);
}

#[test]
fn guarantee_7_differences_between_views() {
    replay("difference", ochopod_inputs::difference, 20_000);
}

#[test]
fn guarantee_7_specifications_of_interfaces() {
    replay("interfaces", ochopod_inputs::interfaces, 20_000);
}

#[test]
fn guarantee_7_plugin_files() {
    replay("plugin", ochopod_inputs::plugin, 1_000);
}

#[test]
fn guarantee_7_what_pods_registered() {
    replay("registration", ochopod_inputs::registration, 20_000);
}

#[test]
fn guarantee_7_requests() {
    replay("request", ochopod_inputs::request, 5_000);
}

#[test]
fn guarantee_7_variables_and_flags() {
    replay("settings", ochopod_inputs::settings, 2_000);
}

#[test]
fn guarantee_7_what_is_in_zookeeper() {
    replay("store", ochopod_inputs::store, 10_000);
}

#[test]
fn guarantee_7_templates_of_configurations() {
    replay("template", ochopod_inputs::template, 5_000);
}

#[test]
fn guarantee_7_names_of_processes() {
    replay("usage", ochopod_inputs::usage, 5_000);
}

#[test]
fn guarantee_7_what_leaders_post() {
    replay("view", ochopod_inputs::view, 20_000);
}
