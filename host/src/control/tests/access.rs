//! Who is obeyed: every route by every right, and what a signature is good for.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, Method};

use super::*;
use crate::{
    cluster::{Signed, Token, body_digest, wire::Credentials},
    control::{
        access::{Asked, judge},
        reply::Reply,
        route::Route,
    },
};

pub(super) const TOKEN: &str = "correct-horse-battery";
const ROUTES: [&str; 8] = ["/info", "/healthz", "/readyz", "/metrics", "/log", "/reset", "/exec", "/control/off/60"];
const NOW: u64 = 1_800_000_000_000_000;
const MINUTE: u64 = 60_000_000;

/// A request as a leader signs it; its headers can be spoilt afterwards.
struct Leader {
    token: &'static str,
    path: &'static str,
    key: &'static str,
    epoch: &'static str,
    time: u64,
    body: &'static str,
}

impl Default for Leader {
    fn default() -> Self {
        Self { token: TOKEN, path: "/control/off/60", key: ID, epoch: "7", time: NOW, body: "" }
    }
}

impl Leader {
    fn authorization(&self) -> String {
        let (time, body) = (self.time.to_string(), body_digest([self.body.as_bytes()]));
        let (path, key, epoch) = (self.path, self.key, self.epoch);
        let signed =
            Signed { method: "POST", path, key, epoch, number: "", generation: "1:g", time: &time, body: &body };
        Credentials::signature(key, &time, &body, &Token::new(self.token).unwrap().sign(&signed))
    }
}

/// The codes that the routes answer to these headers; 0 where access is no objection.
fn codes(headers: &[(&'static str, String)], peer: &str, token: Option<&Token>) -> [u16; 8] {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    ROUTES.map(|path| {
        let method = if path.ends_with('z') || path == "/metrics" { Method::GET } else { Method::POST };
        let asked = Asked {
            route: &Route::find(&method, path).unwrap(),
            method: &method,
            path,
            headers: &map,
            peer: peer.parse::<IpAddr>().unwrap(),
            now: UNIX_EPOCH + Duration::from_micros(NOW),
        };
        judge(asked, &PodId::from(ID), token).err().map_or(0, |refusal| Reply::from(refusal).status().as_u16())
    })
}

#[test]
fn with_a_token_every_route_but_those_that_tell_of_the_pod_needs_it() {
    let bearer = |text: &str| ("authorization", format!("Bearer {text}"));
    let signed = |leader: Leader| ("authorization", leader.authorization());
    let epoch = |text: &str| ("x-ochopod-epoch", text.to_owned());
    let generation = ("x-ochopod-generation", "1:g".to_owned());
    let origin = ("origin", "https://evil.example".to_owned());
    let by = |leader: Leader| vec![signed(leader), epoch("7"), generation.clone()];

    let all = [0; 8];
    let none = [0, 0, 0, 0, 401, 401, 401, 401];
    let control = [0, 0, 0, 0, 401, 401, 401, 0];
    let stranger = [0, 0, 0, 0, 401, 401, 401, 409];
    let cases = [
        ("nothing", vec![], none),
        ("the token", vec![bearer(TOKEN)], all),
        ("the token, its scheme in small letters", vec![("authorization", format!("bearer {TOKEN}"))], all),
        ("another token", vec![bearer("another-horse-battery")], none),
        ("a part of the token", vec![bearer("correct-horse")], none),
        ("no text", vec![("authorization", "Bearer ".to_owned())], none),
        ("another scheme", vec![("authorization", format!("Basic {TOKEN}"))], none),
        ("the token twice", vec![bearer(TOKEN), bearer(TOKEN)], none),
        ("a page in a browser", vec![origin.clone()], none),
        ("a page that has the token", vec![origin, bearer(TOKEN)], all),
        ("a leader", by(Leader::default()), control),
        ("a leader whose clock is nearly late", by(Leader { time: NOW - 5 * MINUTE, ..Leader::default() }), control),
        ("a leader whose clock is late", by(Leader { time: NOW - 5 * MINUTE - 1, ..Leader::default() }), none),
        ("a leader whose clock is early", by(Leader { time: NOW + 5 * MINUTE + 1, ..Leader::default() }), none),
        ("a leader with another token", by(Leader { token: "another-horse-battery", ..Leader::default() }), none),
        ("a leader that meant another path", by(Leader { path: "/control/on/60", ..Leader::default() }), none),
        ("a leader that meant another limit", by(Leader { path: "/control/off/61", ..Leader::default() }), none),
        ("a leader that meant another pod", by(Leader { key: "other", ..Leader::default() }), stranger),
        ("a leader of another epoch", by(Leader { epoch: "8", ..Leader::default() }), none),
        ("a leader without its epoch", vec![signed(Leader::default()), generation.clone()], none),
        ("a leader with two epochs", vec![signed(Leader::default()), epoch("7"), epoch("7"), generation.clone()], none),
        ("a leader without its generation", vec![signed(Leader::default()), epoch("7")], none),
        ("half a signature", vec![("authorization", "Ochopod-HMAC-SHA256 key=a,time=1".to_owned())], none),
        (
            "a signature for another pod that claims to be for this one",
            vec![
                ("authorization", Leader { key: "other", ..Leader::default() }.authorization().replace("other", ID)),
                epoch("7"),
                generation,
            ],
            none,
        ),
    ];
    let token = Token::new(TOKEN).unwrap();
    for (what, headers, expected) in cases {
        for peer in ["127.0.0.1", "10.0.0.7"] {
            assert_eq!(codes(&headers, peer, Some(&token)), expected, "{what} from {peer}");
        }
    }
}

#[test]
fn without_a_token_pages_are_refused_and_what_acts_at_once_is_for_this_machine() {
    let origin = || vec![("origin", "https://evil.example".to_owned())];
    let bearer = || vec![("authorization", format!("Bearer {TOKEN}"))];
    let remote = [0, 0, 0, 0, 0, 403, 403, 0];
    let cases = [
        ("this machine", vec![], "127.0.0.1", [0; 8]),
        ("another address of it", vec![], "127.0.0.2", [0; 8]),
        ("this machine by IPv6", vec![], "::1", [0; 8]),
        ("this machine, mapped", vec![], "::ffff:127.0.0.1", [0; 8]),
        ("another machine", vec![], "10.0.0.7", remote),
        ("another machine by IPv6", vec![], "fe80::1", remote),
        ("another machine, mapped", vec![], "::ffff:10.0.0.7", remote),
        ("another machine with a token", bearer(), "10.0.0.7", remote),
        ("a page on this machine", origin(), "127.0.0.1", [403; 8]),
        ("a page on another machine", origin(), "10.0.0.7", [403; 8]),
    ];
    for (what, headers, peer, expected) in cases {
        assert_eq!(codes(&headers, peer, None), expected, "{what}");
    }
}

/// The headers of a request that was signed just now.
fn signed(body: &'static str) -> String {
    let time = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let leader = Leader { epoch: "", path: "/control/signal/60", time, body, ..Leader::default() };
    format!("X-Ochopod-Generation: 1:g\r\nAuthorization: {}\r\n", leader.authorization())
}

#[tokio::test]
async fn a_signed_request_is_obeyed_once_and_with_its_own_body_only() {
    let mut served = Served::with_token(TOKEN).await;
    let line = "POST /control/signal/60";
    let headers = signed("[1]");
    let answer = served.send(line, &headers, "[2]").await;
    assert_eq!((answer.status, answer.error()), (401, "the body is not the one that was signed".to_owned()));
    let (answer, _) = served.submitted(line, &headers, "[1]", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "what was refused does not count");
    let answer = served.send(line, &headers, "[1]").await;
    assert_eq!((answer.status, answer.error()), (401, "the signed request came before: it is obeyed once".to_owned()));
    let (answer, _) = served.submitted(line, &signed("[1]"), "[1]", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "the same, signed anew, is another request");
    served.assert_nothing_changed();
}

#[tokio::test]
async fn who_may_not_ask_is_told_what_is_expected_before_anything_else_is_judged() {
    let mut served = Served::with_token(TOKEN).await;
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    for (line, body) in [("POST /control/nothing/abc", ""), ("POST /control/on", &*huge), ("POST /exec", "")] {
        let answer = served.send(line, "X-Ochopod-Epoch: abc\r\n", body).await;
        assert_eq!(answer.status, 401, "{line}");
        assert!(
            answer.head.contains("www-authenticate: bearer") && answer.error().contains("Authorization: Bearer TOKEN")
        );
    }
    assert_eq!(served.send("GET /control/on", "", "").await.status, 405);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(served.send("POST /control/nothing", &bearer, "").await.status, 400);
    assert_eq!(served.send("POST /control/on", &bearer, &huge).await.status, 413);
    let huge_signed = served.send("POST /control/signal/60", &signed("x"), &huge).await;
    assert_eq!(huge_signed.status, 413, "before its digest is compared");
    assert_eq!(served.send("POST /control/signal/60", &signed("x"), "x").await.status, 400, "after it was");
    assert_eq!(served.send("GET /info", "", "").await.status, 200);
    served.assert_nothing_changed();
}
