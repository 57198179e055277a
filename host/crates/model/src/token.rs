//! The token that the pods of a cluster may share, and signatures made with it.

use std::fmt;

use ring::{
    digest::{Context, SHA256},
    hmac,
};
use subtle::ConstantTimeEq as _;

use super::digest::hex;

/// Requirement of a token, for errors.
pub const TOKEN_REQUIREMENT: &str = "at least 16 visible ASCII characters";
const MIN_TOKEN_BYTES: usize = 16;
/// Prefixes of authenticated data, so that a proof of one kind is never valid as the other.
const BEARER: &[u8] = b"ochopod-bearer-1";
const REQUEST: &[u8] = b"ochopod-request-2";

/// A shared secret. Its text is neither kept nor displayed.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    own: hmac::Tag,
}

/// The parts of a request that a leader signs. The body is signed by its [`body_digest`], so that the head alone can be verified.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The pod for which it is.
    pub key: &'a str,
    /// The header [`EPOCH`](super::wire::EPOCH), empty without one.
    pub epoch: &'a str,
    /// The header [`NUMBER`](super::wire::NUMBER), empty without one.
    pub number: &'a str,
    /// The header [`GENERATION`](super::wire::GENERATION), empty without one.
    pub generation: &'a str,
    /// The header [`VIEW`](super::wire::VIEW), empty without one.
    pub view: &'a str,
    /// The header [`TARGET`](super::wire::TARGET), empty without one.
    pub target: &'a str,
    /// When it was signed, in microseconds since 1970, in decimal.
    pub time: &'a str,
    /// Digest of the body.
    pub body: &'a str,
}

impl Token {
    /// Returns a token of this text; none if that does not meet the [requirement](TOKEN_REQUIREMENT).
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.len() < MIN_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let own = hmac_tag(&key, BEARER, [text]);
        Some(Self { key, own })
    }

    /// Returns whether this is the text of the token. Takes equally long for any text of one length.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let presented = hmac_tag(&self.key, BEARER, [text]);
        presented.as_ref().ct_eq(self.own.as_ref()).into()
    }

    /// Returns the signature of a request: HMAC-SHA256 with the token's text as its key, over `ochopod-request-2` and then each
    /// field in the order of [`SignedRequest`], preceded by its length in bytes (8 bytes, little-endian). In hexadecimal.
    #[must_use]
    pub fn sign(&self, request: &SignedRequest<'_>) -> String {
        hex(hmac_tag(&self.key, REQUEST, request.fields()).as_ref())
    }

    /// Returns whether this is the signature of the request. Takes equally long for any signature of one length.
    #[must_use]
    pub fn verify(&self, request: &SignedRequest<'_>, signature: &str) -> bool {
        self.sign(request).as_bytes().ct_eq(signature.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl<'a> SignedRequest<'a> {
    fn fields(&self) -> [&'a str; 10] {
        let headers = [self.epoch, self.number, self.generation, self.view, self.target];
        let [epoch, number, generation, view, target] = headers;
        [self.method, self.path, self.key, epoch, number, generation, view, target, self.time, self.body]
    }
}

/// Returns the digest of a body that is sent in these parts: SHA-256, in hexadecimal.
///
/// It is computed for each pod, although most of a view is the same for all: a pod takes far longer to parse a view than both
/// sides take to digest it.
#[must_use]
pub fn body_digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = Context::new(&SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    hex(context.finish().as_ref())
}

fn hmac_tag<'a>(key: &hmac::Key, purpose: &[u8], fields: impl IntoIterator<Item = &'a str>) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(purpose);
    for field in fields {
        context.update(&(field.len() as u64).to_le_bytes());
        context.update(field.as_bytes());
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "correct-horse-battery";

    #[test]
    fn token_is_long_and_visible_and_not_displayed() {
        for bad in [
            "",
            "short",
            "fifteen-letters",
            "with a blank in it",
            "with\ttabs-in-it-here",
            "caf\u{e9}-caf\u{e9}-caf\u{e9}-caf\u{e9}",
        ] {
            assert!(Token::new(bad).is_none(), "{bad:?}");
        }
        let token = Token::new(TEXT).unwrap();
        assert!(token.matches(TEXT));
        for wrong in ["", "correct-horse-batterx", "correct-horse-battery ", "correct-horse"] {
            assert!(!token.matches(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn signature_is_valid_for_its_request_only() {
        let token = Token::new(TEXT).unwrap();
        let request = SignedRequest {
            method: "POST",
            path: "/control/on/60",
            key: "a",
            epoch: "7",
            number: "3",
            generation: "1:x",
            view: "y",
            target: "a",
            time: "5",
            body: "",
        };
        let signature = token.sign(&request);
        assert!(token.verify(&request, &signature));
        let others = [
            SignedRequest { method: "GET", ..request },
            SignedRequest { path: "/control/off/60", ..request },
            SignedRequest { key: "b", ..request },
            SignedRequest { epoch: "8", ..request },
            SignedRequest { number: "4", ..request },
            SignedRequest { generation: "", ..request },
            SignedRequest { view: "", ..request },
            SignedRequest { target: "", ..request },
            SignedRequest { time: "6", ..request },
            SignedRequest { body: "x", ..request },
            // The same text, split differently.
            SignedRequest { number: "31", generation: ":x", ..request },
        ];
        for other in others {
            assert!(!token.verify(&other, &signature), "{other:?}");
        }
        assert!(!Token::new("another-horse-battery").unwrap().verify(&request, &signature));
        assert!(!token.verify(&request, &signature.to_uppercase()));
    }

    #[test]
    fn signature_is_that_of_the_documented_text() {
        let token = Token::new(TEXT).unwrap();
        let body = body_digest([b"{\"key\":".as_slice(), b"\"a\"}"]);
        assert_eq!(body, body_digest([b"{\"key\":\"a\"}".as_slice()]));
        let fields = ["POST", "/control/off", "a", "7", "3", "", "00", "a", "5", body.as_str()];
        let [method, path, key, epoch, number, generation, view, target, time, body] = fields;
        let mut text = b"ochopod-request-2".to_vec();
        for field in fields {
            text.extend((field.len() as u64).to_le_bytes());
            text.extend(field.as_bytes());
        }
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TEXT.as_bytes()), &text);
        let request = SignedRequest { method, path, key, epoch, number, generation, view, target, time, body };
        assert_eq!(token.sign(&request), hex(expected.as_ref()));
    }
}
