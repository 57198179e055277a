//! What a new configuration changes, and what it leaves alone.

use ochopod::{
    discovery::{ConsulAddress, Place, Registration},
    pilot::config::{Config, Health, Service},
};
use tokio::time::Instant;

use crate::{
    kit::{SECOND, Ship, at, service, with_services},
    place::{InMemory, Weather, second},
};

#[tokio::test(start_paused = true)]
async fn a_service_that_is_the_same_keeps_its_registration_and_its_polls() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 17.0).await;
    ship.crew.apply(&with_services(&[service("new"), service("app")])).unwrap();
    second(begin, 35.0).await;
    let expected = ["10 register app-h:80", "20 pass app-h", "27.001 register new-h:80", "30 pass app-h"];
    assert_eq!(place.told(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_changed_is_registered_again_at_once_and_never_removed() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let moved = Service { port: 81, poll: 4 * SECOND, ..service("app") };
    ship.crew.apply(&with_services(&[moved])).unwrap();
    second(begin, 20.0).await;
    let expected = ["10 register app-h:80", "15.001 register app-h:81", "19.001 pass app-h"];
    assert_eq!(place.told(), expected);
    assert_eq!(ship.crew.withdraw(SECOND).await, 0);
    assert!(place.healthy().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_changed_before_it_was_healthy_waits_for_its_first_poll() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[Service { health: Health::SanityCheck, ..service("app") }]));
    second(begin, 15.0).await;
    ship.crew.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 26.0).await;
    assert_eq!(place.told(), ["25.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_is_removed() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app"), service("old")]));
    second(begin, 15.0).await;
    ship.crew.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 60.0).await;
    assert_eq!(place.news(), ["register app-h:80", "register old-h:80", "deregister old-h"]);
    assert_eq!(place.healthy(), ["app-h"]);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_under_way_when_its_service_changes_is_replaced_by_the_new_one() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
    place.turns(Weather::Slow(2 * SECOND));
    second(begin, 11.0).await;
    ship.crew.apply(&with_services(&[Service { port: 81, ..service("app") }])).unwrap();
    second(begin, 15.0).await;
    assert_eq!(place.told(), ["10 register app-h:80", "12 register app-h:81"]);
    assert_eq!(place.registration("app-h").map(|Registration { port, .. }| port), Some(81));
}

#[tokio::test(start_paused = true)]
async fn another_place_gets_all_services_and_the_former_one_loses_them() {
    let (here, there) = (InMemory::new(), InMemory::new());
    let begin = Instant::now();
    let mut ship = Ship::new(&[("here", here.clone()), ("there", there.clone())]);
    let sick = Service { health: Health::SanityCheck, ..service("sick") };
    let services = with_services(&[service("app"), service("old"), sick.clone()]);
    ship.crew.apply(&services).unwrap();
    second(begin, 15.0).await;
    let moved = Config { place: at("there"), ..with_services(&[service("app"), sick]) };
    ship.crew.apply(&moved).unwrap();
    second(begin, 26.0).await;
    assert!(here.healthy().is_empty());
    assert_eq!(here.news(), ["register app-h:80", "register old-h:80", "deregister app-h", "deregister old-h"]);
    assert_eq!(there.told(), ["15.001 register app-h:80", "25.001 pass app-h"]);
    assert_eq!(ship.crew.withdraw(SECOND).await, 0);
    assert_eq!(there.told(), ["26.001 deregister app-h"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_with_another_token_is_told_of_all_services_again_and_loses_none() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let Place::Consul(address) = at("here") else { panic!("not Consul") };
    let renewed = Place::Consul(ConsulAddress { token: Some("another".to_owned()), ..address });
    ship.crew.apply(&Config { place: renewed, ..with_services(&[service("app")]) }).unwrap();
    second(begin, 16.0).await;
    assert_eq!(place.told(), ["10 register app-h:80", "15.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_former_place_that_hangs_delays_the_move_only_a_little() {
    let (here, there) = (InMemory::new(), InMemory::new());
    let begin = Instant::now();
    let mut ship = Ship::new(&[("here", here.clone()), ("there", there.clone())]);
    ship.crew.apply(&with_services(&[service("app")])).unwrap();
    second(begin, 15.0).await;
    here.turns(Weather::Hanging);
    ship.crew.apply(&Config { place: at("there"), ..with_services(&[service("app")]) }).unwrap();
    second(begin, 18.0).await;
    assert_eq!(there.told(), ["17.001 register app-h:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_be_opened_changes_nothing() {
    let begin = Instant::now();
    let (mut ship, place) = Ship::applied(&with_services(&[service("app")]));
    second(begin, 15.0).await;
    let bad = Config { place: at("nowhere"), ..with_services(&[service("other")]) };
    assert_eq!(ship.crew.apply(&bad).unwrap_err().to_string(), "TLS: not at nowhere");
    second(begin, 25.0).await;
    assert_eq!(place.told(), ["10 register app-h:80", "20 pass app-h"]);
}
