//! Effects of a new configuration, and what it leaves unchanged.

use ochopod_discovery::{ConsulAddress, RegistryConfig, ServiceRegistration};
use ochopod_pilot::config::{Config, HealthCheck, Service};
use tokio::time::Instant;

use crate::{
    kit::{SECOND, TestActors, at, service, with_services},
    memory_registry::{Availability, MemoryRegistry, second},
};

#[tokio::test(start_paused = true)]
async fn unchanged_service_keeps_its_registration_and_polls() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 17.0).await;
    test.actors.apply(&with_services(&[service("new"), service("app")])).unwrap();
    second(begin, 35.0).await;
    let expected = ["10 register app-h:80", "20 pass app-h", "27.001 register new-h:80", "30 pass app-h"];
    assert_eq!(registry.recorded(), expected);
}

#[tokio::test(start_paused = true)]
async fn changed_service_is_registered_again_without_removal() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let moved = Service { port: 81, poll: 4 * SECOND, ..service("app") };
    test.actors.apply(&with_services(&[moved])).unwrap();
    second(begin, 20.0).await;
    let expected = ["10 register app-h:80", "15.001 register app-h:81", "19.001 pass app-h"];
    assert_eq!(registry.recorded(), expected);
    assert_eq!(test.actors.deregister(SECOND).await, 0);
    assert!(registry.healthy().is_empty());
}

#[tokio::test(start_paused = true)]
async fn changed_unhealthy_service_waits_for_its_first_poll() {
    let begin = Instant::now();
    let (mut test, registry) =
        TestActors::applied(&with_services(&[Service { health: HealthCheck::SanityCheck, ..service("app") }]));
    second(begin, 15.0).await;
    test.actors.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 26.0).await;
    assert_eq!(registry.recorded(), ["25.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn removed_service_is_deregistered() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app"), service("old")]));
    second(begin, 15.0).await;
    test.actors.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 60.0).await;
    assert_eq!(registry.recorded_calls(), ["register app-h:80", "register old-h:80", "deregister old-h"]);
    assert_eq!(registry.healthy(), ["app-h"]);
}

#[tokio::test(start_paused = true)]
async fn registration_in_progress_is_replaced_by_a_reload() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
    registry.set_availability(Availability::Slow(2 * SECOND));
    second(begin, 11.0).await;
    test.actors.apply(&with_services(&[Service { port: 81, ..service("app") }])).unwrap();
    second(begin, 15.0).await;
    assert_eq!(registry.recorded(), ["10 register app-h:80", "12 register app-h:81"]);
    assert_eq!(registry.registration("app-h").map(|ServiceRegistration { port, .. }| port), Some(81));
}

#[tokio::test(start_paused = true)]
async fn services_move_to_another_registry() {
    let (here, there) = (MemoryRegistry::new(), MemoryRegistry::new());
    let begin = Instant::now();
    let mut test = TestActors::new(&[("here", here.clone()), ("there", there.clone())]);
    let sick = Service { health: HealthCheck::SanityCheck, ..service("sick") };
    let services = with_services(&[service("app"), service("old"), sick.clone()]);
    test.actors.apply(&services).unwrap();
    second(begin, 15.0).await;
    let moved = Config { registry: at("there"), ..with_services(&[service("app"), sick]) };
    test.actors.apply(&moved).unwrap();
    second(begin, 26.0).await;
    assert!(here.healthy().is_empty());
    assert_eq!(
        here.recorded_calls(),
        ["register app-h:80", "register old-h:80", "deregister app-h", "deregister old-h"]
    );
    assert_eq!(there.recorded(), ["15.001 register app-h:80", "25.001 pass app-h"]);
    assert_eq!(test.actors.deregister(SECOND).await, 0);
    assert_eq!(there.recorded(), ["26.001 deregister app-h"]);
}

#[tokio::test(start_paused = true)]
async fn new_token_registers_all_services_again_without_removal() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let RegistryConfig::Consul(address) = at("here") else { panic!("not Consul") };
    let renewed = RegistryConfig::Consul(ConsulAddress { token: Some("another".to_owned()), ..address });
    test.actors.apply(&Config { registry: renewed, ..with_services(&[service("app")]) }).unwrap();
    second(begin, 16.0).await;
    assert_eq!(registry.recorded(), ["10 register app-h:80", "15.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn hanging_former_registry_delays_the_move_briefly() {
    let (here, there) = (MemoryRegistry::new(), MemoryRegistry::new());
    let begin = Instant::now();
    let mut test = TestActors::new(&[("here", here.clone()), ("there", there.clone())]);
    test.actors.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 15.0).await;
    here.set_availability(Availability::Hanging);
    test.actors.apply(&Config { registry: at("there"), ..with_services(&[service("app")]) }).unwrap();
    second(begin, 18.0).await;
    assert_eq!(there.recorded(), ["17.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn registry_that_cannot_be_opened_changes_nothing() {
    let begin = Instant::now();
    let (mut test, registry) = TestActors::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let bad = Config { registry: at("nowhere"), ..with_services(&[service("other")]) };
    assert_eq!(test.actors.apply(&bad).unwrap_err().to_string(), "TLS: not at nowhere");
    second(begin, 25.0).await;
    assert_eq!(registry.recorded(), ["10 register app-h:80", "20 pass app-h"]);
}
