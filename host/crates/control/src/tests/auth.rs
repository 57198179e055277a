//! Authorization: every route by every right, and the validity of signatures.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, Method};
use ochopod_http::Reply;
use ochopod_model::{SignedRequest, Token, body_digest, wire::Credentials};

use super::*;
use crate::{
    auth::{AuthRequest, authorize},
    route::Route,
};

pub(super) const TOKEN: &str = "correct-horse-battery";
const ROUTES: [&str; 8] = ["/info", "/healthz", "/readyz", "/metrics", "/log", "/reset", "/exec", "/control/off/60"];
const NOW: u64 = 1_800_000_000_000_000;
const MINUTE: u64 = 60_000_000;

/// A request as a leader signs it; its headers can be modified afterwards.
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
        let signed = SignedRequest {
            method: "POST",
            path,
            key,
            epoch,
            number: "",
            generation: "1:g",
            view: "",
            target: "",
            time: &time,
            body: &body,
        };
        Credentials::signature(key, &time, &body, &Token::new(self.token).unwrap().sign(&signed))
    }
}

/// Returns the codes that the routes answer to these headers; 0 if access is allowed.
fn codes(headers: &[(&'static str, String)], peer: &str, token: Option<&Token>) -> [u16; 8] {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    ROUTES.map(|path| {
        let method = if path.ends_with('z') || path == "/metrics" { Method::GET } else { Method::POST };
        let request = AuthRequest {
            route: &Route::parse(&method, path).unwrap(),
            method: &method,
            path,
            headers: &map,
            peer: peer.parse::<IpAddr>().unwrap(),
            has_certificate: false,
            has_body: false,
            now: UNIX_EPOCH + Duration::from_micros(NOW),
        };
        authorize(request, &PodId::from(ID), token).err().map_or(0, |error| Reply::from(error).status().as_u16())
    })
}

#[test]
fn token_is_required_for_every_route_except_probes_and_info() {
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
fn pod_without_token_rejects_browsers_and_accepts_exec_and_reset_from_loopback_only() {
    let origin = || vec![("origin", "https://evil.example".to_owned())];
    let bearer = || vec![("authorization", format!("Bearer {TOKEN}"))];
    let remote = [0, 0, 0, 0, 0, 403, 403, 0];
    let guest = [0, 0, 0, 0, 0, 403, 403, 403];
    let cases = [
        ("this machine", vec![], "127.0.0.1", [0; 8]),
        ("another address of it", vec![], "127.0.0.2", [0; 8]),
        ("this machine by IPv6", vec![], "::1", [0; 8]),
        ("this machine, mapped", vec![], "::ffff:127.0.0.1", [0; 8]),
        ("a guest", vec![], "127.255.255.1", guest),
        ("a guest, mapped", vec![], "::ffff:127.255.0.1", guest),
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

#[test]
fn component_for_a_reload_requires_a_token_or_a_certificate_also_from_loopback() {
    let (method, token) = (Method::POST, Token::new(TOKEN).unwrap());
    let code = |peer: &str, (has_body, has_certificate), token: Option<&Token>, bearer| {
        let mut headers = HeaderMap::new();
        if bearer {
            headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        }
        let now = UNIX_EPOCH + Duration::from_micros(NOW);
        let (route, peer) = (&Route::Reload, peer.parse::<IpAddr>().unwrap());
        let path = "/reload";
        let request =
            AuthRequest { route, method: &method, path, headers: &headers, peer, has_certificate, has_body, now };
        authorize(request, &PodId::from(ID), token).err().map_or(0, |error| Reply::from(error).status().as_u16())
    };
    let (local, remote, guest) = ("127.0.0.1", "10.0.0.7", "127.255.255.1");
    let (file, component) = (false, true);
    for (peer, request, expected) in [
        (local, (file, false), 0),
        (remote, (file, false), 403),
        (remote, (file, true), 403),
        (local, (component, false), 403),
        (remote, (component, false), 403),
        (local, (component, true), 0),
        (remote, (component, true), 0),
        (guest, (component, true), 403),
    ] {
        assert_eq!(code(peer, request, None, false), expected, "{peer} {request:?}");
    }
    for request in [(file, false), (component, false), (component, true)] {
        assert_eq!(code(local, request, Some(&token), false), 401, "{request:?}");
        assert_eq!(code(remote, request, Some(&token), true), 0, "{request:?}");
    }
}

/// Returns the headers of a request that was signed just now.
fn signed(body: &'static str) -> String {
    let time = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let leader = Leader { epoch: "", path: "/control/signal/60", time, body, ..Leader::default() };
    format!("X-Ochopod-Generation: 1:g\r\nAuthorization: {}\r\n", leader.authorization())
}

#[tokio::test]
async fn signed_request_is_accepted_once_and_with_its_body_only() {
    let mut served = TestServer::with_token(TOKEN).await;
    let line = "POST /control/signal/60";
    let headers = signed("[1]");
    let answer = served.send(line, &headers, "[2]").await;
    assert_eq!((answer.status, answer.error()), (401, "body does not match signature".to_owned()));
    for added in ["X-Ochopod-View: 00\r\n", &format!("X-Ochopod-Target: {ID}\r\n")] {
        let answer = served.send(line, &format!("{added}{headers}"), "[1]").await;
        let error = "invalid signature: tokens differ or the request was modified";
        assert_eq!((answer.status, &*answer.error()), (401, error), "{added}");
    }
    let (answer, _) = served.submitted(line, &headers, "[1]", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "what was refused does not count");
    let answer = served.send(line, &headers, "[1]").await;
    assert_eq!((answer.status, answer.error()), (401, "replayed request: signature already used".to_owned()));
    // A replayed head is rejected before its body, which may never come: it would occupy a leader's place.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: pod\r\n{headers}Content-Length: 3\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    timeout(TIMEOUT, stream.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(&begin, b"HTTP/1.1 401");
    let (answer, _) = served.submitted(line, &signed("[1]"), "[1]", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "the same request, signed again, is another request");
    served.assert_nothing_changed();
}

#[tokio::test]
async fn unauthorized_client_is_rejected_before_anything_else_is_checked() {
    let mut served = TestServer::with_token(TOKEN).await;
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
