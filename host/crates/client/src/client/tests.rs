//! Requests to servers with chosen replies.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends a request to a server that answers with these bytes; returns its reply and the head that it read.
async fn exchange<T>(answer: String, request: impl AsyncFnOnce(&str) -> T) -> (T, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    tokio::join!(request(&address), server)
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn info_is_the_object_of_a_200_reply_and_any_other_is_an_error() {
    let client = Client::plain(Auth::None);
    let (info, head) = exchange(reply("200 OK", r#"{"key":"a"}"#), async |at| client.info(at, TIMEOUT).await).await;
    assert_eq!(info.unwrap()["key"], "a");
    assert!(head.starts_with("GET /info HTTP/1.1\r\n"), "{head}");
    for (answer, expected) in [
        (reply("403 No", r#"{"error":"invalid token"}"#), "failed with 403: invalid token"),
        (reply("200 OK", "[]"), "invalid reply: "),
        (reply("200 OK", ""), "invalid reply: "),
    ] {
        let (info, _) = exchange(answer, async |at| client.info(at, TIMEOUT).await).await;
        let error = info.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn readiness_has_the_reason_of_a_503_reply() {
    let client = Client::plain(Auth::None);
    let readyz = async |answer| exchange(answer, async |at| client.readyz(at, TIMEOUT).await).await.0;
    assert_eq!(readyz(reply("200 OK", "{}")).await.unwrap(), Readiness::Ready);
    let body = r#"{"error":"pod is shutting down"}"#;
    let expected = Readiness::NotReady("pod is shutting down".to_owned());
    assert_eq!(readyz(reply("503 No", body)).await.unwrap(), expected);
    assert!(matches!(readyz(reply("404 No", body)).await, Err(ClientError::Status(404, _))));
    let (health, _) = exchange(reply("200 OK", "{}"), async |at| client.healthz(at, TIMEOUT).await).await;
    health.unwrap();
}

#[tokio::test]
async fn bearer_token_is_sent_with_every_request_and_not_shown() {
    let client = Client::plain(Auth::Bearer("correct-horse-battery".to_owned()));
    let (_, head) = exchange(reply("200 OK", "{}"), async |at| client.info(at, TIMEOUT).await).await;
    assert!(head.contains("authorization: Bearer correct-horse-battery\r\n"), "{head}");
    assert!(!format!("{client:?}").contains("horse"));
}

#[tokio::test]
async fn reply_above_the_limit_or_after_the_time_limit_is_an_error() {
    let client = Client::plain(Auth::None).with_max_reply_bytes(10);
    let (info, _) = exchange(reply("200 OK", "01234567890"), async |at| client.info(at, TIMEOUT).await).await;
    assert!(matches!(info, Err(ClientError::Body(_))), "{info:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = client.info(&address, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.to_string(), "no reply within 0.2 s");
    let error = client.info("not an address", TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ClientError::InvalidRequest(_)), "{error}");
}

#[tokio::test]
async fn step_down_names_the_leadership_and_is_signed_if_there_is_a_token() {
    let token = || ochopod_model::Token::new("correct-horse-battery").unwrap();
    for (auth, is_signed) in [(Auth::None, false), (Auth::Signed(Box::new(token())), true)] {
        let client = Client::plain(auth);
        let (pod, to) = (PodId::from("a"), PodId::from("b"));
        let request = async |at: &str| client.step_down(at, &pod, 7, &to, TIMEOUT).await;
        let (answer, head) = exchange(reply("200 OK", "{}"), request).await;
        assert_eq!(answer.unwrap().status, 200);
        assert!(head.starts_with("POST /control/step-down HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("x-ochopod-epoch: 7\r\n") && !head.contains("x-ochopod-number"), "{head}");
        assert_eq!(head.contains("authorization: Ochopod-HMAC-SHA256 key=a,"), is_signed, "{head}");
    }
}

#[tokio::test]
async fn head_of_a_pods_reply_is_small_and_its_body_need_not_be() {
    let client = Client::for_peers(&ControlSecurity::insecure().unwrap());
    let body = format!(r#"{{"key":"{}"}}"#, "a".repeat(50_000));
    let answer = |filler| reply(&format!("200 OK\r\nX-Filler: {}", "x".repeat(filler)), &body);
    let (info, _) = exchange(answer(1500), async |at| client.info(at, TIMEOUT).await).await;
    assert_eq!(info.unwrap()["key"].as_str().unwrap().len(), 50_000);
    let (info, _) = exchange(answer(3000), async |at| client.info(at, TIMEOUT).await).await;
    assert!(matches!(info, Err(ClientError::Exchange(_))), "{info:?}");
}
