//! Input of `onChange` with many instances.

use ochopod_discovery::ServiceRegistration;
use ochopod_pilot::config::Config;

use crate::{
    kit::{CapturedLog, MS, ScriptDir, TestActors, backend, config, eventually, registered},
    memory_registry::MemoryRegistry,
};

/// More than a variable can hold, and than a pipe.
const MANY: u16 = 10_000;

fn many() -> Vec<ServiceRegistration> {
    (1..=MANY).map(|port| registered("db", &format!("db-{port}"), port, &[])).collect()
}

fn watched(registry: &MemoryRegistry, script: &str) -> TestActors {
    let mut test = TestActors::new(&[("here", registry.clone())]);
    test.actors.apply(&Config { backends: vec![backend("db", 50 * MS, script)], ..config() }).unwrap();
    test
}

#[tokio::test]
async fn list_too_long_is_unset_and_standard_input_is_complete() {
    let (dir, log, registry) = (ScriptDir::new(), CapturedLog::listen(), MemoryRegistry::new());
    registry.set_instances(&many());
    let script = "test -z \"${OCHOPOD_ADDRESSES+set}${OCHOPOD_ADDED+set}\" && test -n \"${OCHOPOD_REMOVED+set}\" \
                  && grep -o '\"address\"' | wc -l >> @read";
    let _test = watched(&registry, &dir.script(script));
    dir.has("read", 1).await;
    assert_eq!(dir.text("read").trim(), MANY.to_string());
    eventually("the omitted variables are logged", || log.count("OCHOPOD_ADDRESSES, OCHOPOD_ADDED left unset") == 1)
        .await;
}

#[tokio::test]
async fn on_change_need_not_read_standard_input() {
    let (dir, log) = (ScriptDir::new(), CapturedLog::listen());
    for (file, script) in [("deaf", "echo . >> @deaf"), ("closed", "exec <&-; sleep 0.1; echo . >> @closed")] {
        let registry = MemoryRegistry::new();
        registry.set_instances(&many());
        let _test = watched(&registry, &dir.script(script));
        dir.has(file, 1).await;
        registry.set_instances(&[registered("db", "db-1", 1, &[])]);
        dir.has(file, 2).await;
    }
    assert_eq!(log.count("db.onChange: ended"), 0);
}
