//! When a backend's reaction runs.

use std::time::{Duration, Instant};

use ochopod::{
    discovery::Registration,
    pilot::config::{Backend, Config},
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    kit::{Desk, LIMIT, Log, MS, SECOND, Ship, backend, config, eventually, gone, registered},
    place::{InMemory, Weather},
};

fn watching(backends: &[Backend]) -> Config {
    Config { backends: backends.to_vec(), ..config() }
}

fn db(port: u16) -> Registration {
    registered("db", "db-1", port, &[])
}

/// A crew that watches these at this place.
fn watched(place: &InMemory, backends: &[Backend]) -> Ship {
    let mut ship = Ship::new(&[("here", place.clone())]);
    ship.crew.apply(&watching(backends)).unwrap();
    ship
}

/// Waits for so many looks more.
async fn looks(place: &InMemory, more: usize) {
    let wanted = place.looks() + more;
    eventually("it was looked at", || place.looks() >= wanted).await;
}

#[tokio::test]
async fn a_reaction_runs_at_each_change_and_at_none_but_a_change() {
    let (desk, place) = (Desk::new(), InMemory::new());
    place.holds(&[db(1)]);
    let _ship = watched(&place, &[backend("db", 50 * MS, &desk.script("echo . >> @runs"))]);
    desk.has("runs", 1).await;
    let other = registered("web", "web-1", 9, &[]);
    let tagged = registered("db", "db-1", 2, &["new"]);
    for (held, runs) in [
        (vec![db(1)], 1),
        (vec![db(2)], 2),
        (vec![tagged], 2),
        (vec![db(2), other], 2),
        (vec![registered("db", "db-9", 2, &[])], 2),
        (vec![], 3),
        (vec![], 3),
        (vec![db(2)], 4),
    ] {
        place.holds(&held);
        looks(&place, 3).await;
        desk.has("runs", runs).await;
        assert_eq!(desk.lines("runs"), runs, "{held:?}");
    }
}

#[tokio::test]
async fn the_first_look_comes_one_poll_after_the_start() {
    let (desk, place) = (Desk::new(), InMemory::new());
    place.holds(&[db(1)]);
    let begin = Instant::now();
    let _ship = watched(&place, &[backend("db", 300 * MS, &desk.script("echo . >> @runs"))]);
    desk.has("runs", 1).await;
    assert!(begin.elapsed() >= 300 * MS);
}

#[tokio::test]
async fn two_backends_of_one_name_and_different_tags_do_not_flap() {
    let (desk, place) = (Desk::new(), InMemory::new());
    place.holds(&[registered("db", "db-1", 1, &["blue"]), registered("db", "db-2", 2, &["green"])]);
    let tagged = |tag: &str| {
        let script = desk.script(&format!("echo . >> @{tag}"));
        Backend { tag: Some(tag.to_owned()), ..backend("db", 50 * MS, &script) }
    };
    let _ship = watched(&place, &[tagged("blue"), tagged("green"), tagged("red")]);
    desk.has("blue", 1).await;
    desk.has("green", 1).await;
    looks(&place, 12).await;
    assert_eq!(["blue", "green", "red"].map(|tag| desk.lines(tag)), [1, 1, 0]);
    place.holds(&[registered("db", "db-1", 1, &["blue"])]);
    desk.has("green", 2).await;
    looks(&place, 6).await;
    assert_eq!(["blue", "green", "red"].map(|tag| desk.lines(tag)), [1, 2, 0]);
}

#[tokio::test]
async fn changes_during_a_reaction_lead_to_one_more_and_never_to_two_at_once() {
    let (desk, place) = (Desk::new(), InMemory::new());
    let script = "mkdir @busy || echo twice >> @twice; echo . >> @begun; while test ! -e @go; do sleep 0.01; done; rmdir @busy; \
                  echo . >> @ended; exit 1";
    let _ship = watched(&place, &[backend("db", 20 * MS, &desk.script(script))]);
    place.holds(&[db(1)]);
    desk.has("begun", 1).await;
    for port in 2..7 {
        place.holds(&[db(port)]);
        looks(&place, 2).await;
    }
    assert_eq!(desk.lines("begun"), 1);
    std::fs::write(desk.path("go"), "").unwrap();
    desk.has("ended", 2).await;
    looks(&place, 5).await;
    assert_eq!((desk.lines("begun"), desk.lines("ended"), desk.text("twice")), (2, 2, String::new()));
}

#[tokio::test]
async fn where_a_place_can_be_waited_for_a_change_is_reacted_to_at_once() {
    let (desk, place) = (Desk::new(), InMemory::blocking());
    let poll = 2 * SECOND;
    let _ship = watched(&place, &[backend("db", poll, &desk.script("echo . >> @runs"))]);
    looks(&place, 2).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=5 {
        sleep(50 * MS).await;
        let begin = Instant::now();
        place.holds(&[db(u16::try_from(round).unwrap())]);
        desk.has("runs", round).await;
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < poll * 3 / 4, "{slowest:?}");
    let before = place.looks();
    sleep(poll).await;
    assert!(place.looks() - before <= 3, "it is waited for, not asked again and again");
}

#[tokio::test]
async fn a_place_that_is_away_is_no_change_and_the_log_tells_it_once() {
    let (desk, log, place) = (Desk::new(), Log::listen(), InMemory::blocking());
    place.holds(&[db(1)]);
    let _ship = watched(&place, &[backend("db", 50 * MS, &desk.script("echo . >> @runs"))]);
    desk.has("runs", 1).await;
    place.turns(Weather::Away);
    looks(&place, 6).await;
    place.turns(Weather::Fine);
    looks(&place, 3).await;
    assert_eq!(desk.lines("runs"), 1);
    place.holds(&[]);
    desk.has("runs", 2).await;
    assert_eq!(log.count("WARN cannot look for instances of db: nobody answers"), 1);
    assert_eq!(log.count("INFO instances of db can be looked for again"), 1);
}

#[tokio::test]
async fn a_reaction_that_fails_or_takes_too_long_is_logged_and_not_repeated() {
    let (desk, log, place) = (Desk::new(), Log::listen(), InMemory::new());
    let script = desk.script("echo . >> @runs; echo reacting; test -e @hang && exec sleep 1000; exit 7");
    let _ship = watched(&place, &[Backend { limit: 300 * MS, ..backend("db", 30 * MS, &script) }]);
    place.holds(&[db(1)]);
    eventually("it failed", || log.count("WARN db.onChange: ended with code 7") == 1).await;
    assert_eq!(log.count(r#"INFO reacting process="onChange" backend="db""#), 1);
    std::fs::write(desk.path("hang"), "").unwrap();
    place.holds(&[db(2)]);
    eventually("it took too long", || log.count("WARN db.onChange timeout after 300ms: '[-c ") == 1).await;
    looks(&place, 5).await;
    assert_eq!(desk.lines("runs"), 2);
}

#[tokio::test]
async fn nothing_is_looked_at_during_maintenance_and_what_changed_meanwhile_is_seen_after_it() {
    for place in [InMemory::new(), InMemory::blocking()] {
        let desk = Desk::new();
        let mut ship = watched(&place, &[backend("db", 50 * MS, &desk.script("echo . >> @runs"))]);
        place.holds(&[db(1)]);
        desk.has("runs", 1).await;
        ship.crew.maintain(true);
        sleep(20 * MS).await;
        let before = place.looks();
        place.holds(&[db(2)]);
        sleep(300 * MS).await;
        assert_eq!((place.looks(), desk.lines("runs")), (before, 1));
        ship.crew.maintain(false);
        desk.has("runs", 2).await;
    }
}

#[tokio::test]
async fn what_was_seen_outlives_a_new_configuration_and_a_reaction_it_interrupts_is_due_again() {
    let (desk, place) = (Desk::new(), InMemory::new());
    place.holds(&[db(1)]);
    let quick = backend("db", 50 * MS, &desk.script("echo $$ > @quick; echo . >> @runs"));
    let mut ship = watched(&place, std::slice::from_ref(&quick));
    desk.has("runs", 1).await;
    gone(desk.pid("quick").await).await;
    looks(&place, 1).await;
    let slow = backend("db", 40 * MS, &desk.script("echo $$ > @pid; echo . >> @slow; exec sleep 1000"));
    ship.crew.apply(&watching(std::slice::from_ref(&slow))).unwrap();
    looks(&place, 4).await;
    assert_eq!((desk.lines("runs"), desk.lines("slow")), (1, 0));
    place.holds(&[db(2)]);
    let pid = desk.pid("pid").await;
    ship.crew.apply(&watching(std::slice::from_ref(&quick))).unwrap();
    desk.has("runs", 2).await;
    gone(pid).await;
    looks(&place, 4).await;
    assert_eq!((desk.lines("runs"), desk.lines("slow")), (2, 1));
}

#[tokio::test]
async fn a_hanging_place_and_a_reaction_that_does_not_end_delay_neither_withdrawal_nor_the_end() {
    let (desk, place) = (Desk::new(), InMemory::new());
    place.holds(&[db(1)]);
    let script = desk.script("trap '' TERM; echo $$ > @pid; while :; do sleep 1000; done");
    let mut ship = watched(&place, &[backend("db", 50 * MS, &script), backend("web", 50 * MS, "exit 0")]);
    let pid = desk.pid("pid").await;
    place.turns(Weather::Hanging);
    looks(&place, 1).await;
    let asked = Instant::now();
    assert_eq!(ship.crew.withdraw(LIMIT).await, 0);
    ship.crew.disband(200 * MS).await;
    assert!(asked.elapsed() < 10 * SECOND, "{:?}", asked.elapsed());
    gone(pid).await;
}

#[tokio::test]
async fn the_status_counts_the_healthy_instances() {
    let place = InMemory::new();
    place.holds(&[db(1), registered("db", "db-2", 2, &["blue"])]);
    let blue = Backend { tag: Some("blue".to_owned()), ..backend("db", 20 * MS, "exit 0") };
    let ship = watched(&place, &[backend("db", 20 * MS, "exit 0"), blue]);
    let watches = || serde_json::to_value(ship.crew.roster().borrow().status()).unwrap()["Watches"].take();
    let expected = json!([{"Name": "db", "Healthy": 2}, {"Name": "db", "Tag": "blue", "Healthy": 1}]);
    eventually("all are counted", || watches() == expected).await;
}
