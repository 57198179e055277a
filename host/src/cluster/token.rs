//! The secret that the pods of a cluster may share, and what is proved with it.

use std::fmt;

use ring::hmac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::digest::hex;

/// What a token has to be, for errors.
pub const TOKEN_FORM: &str = "at least 16 visible ASCII characters";
const SHORTEST: usize = 16;
/// Beginnings of what is authenticated: nothing that proves one thing can prove the other.
const BEARER: &[u8] = b"ochopod-bearer-1";
const REQUEST: &[u8] = b"ochopod-request-1";

/// A shared secret. Its text is not kept, and not shown.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    own: hmac::Tag,
}

/// What a leader signs of a request. The body is named by its [`body_digest`], so that a request can be judged by its head.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The pod that is meant.
    pub key: &'a str,
    /// The header [`EPOCH`](super::wire::EPOCH), empty without one.
    pub epoch: &'a str,
    /// The header [`NUMBER`](super::wire::NUMBER), empty without one.
    pub number: &'a str,
    /// The header [`GENERATION`](super::wire::GENERATION), empty without one.
    pub generation: &'a str,
    /// When it was signed, in microseconds since 1970, in decimal.
    pub time: &'a str,
    /// Digest of the body.
    pub body: &'a str,
}

impl Token {
    /// A token of this text; none when that is not [what it has to be](TOKEN_FORM).
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let own = tag(&key, BEARER, [text]);
        Some(Self { key, own })
    }

    /// Whether this is the token's text. Takes as long for any text of one length.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let presented = tag(&self.key, BEARER, [text]);
        presented.as_ref().ct_eq(self.own.as_ref()).into()
    }

    /// The signature of a request: HMAC-SHA256 with the token's text as its key, over `ochopod-request-1` and then each
    /// field in the order of [`Signed`], preceded by its length in bytes (8 bytes, little-endian). In hexadecimal.
    #[must_use]
    pub fn sign(&self, request: &Signed<'_>) -> String {
        hex(tag(&self.key, REQUEST, request.fields()).as_ref())
    }

    /// Whether this is the signature of the request. Takes as long for any signature of one length.
    #[must_use]
    pub fn signed(&self, request: &Signed<'_>, signature: &str) -> bool {
        self.sign(request).as_bytes().ct_eq(signature.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl<'a> Signed<'a> {
    fn fields(&self) -> [&'a str; 8] {
        [self.method, self.path, self.key, self.epoch, self.number, self.generation, self.time, self.body]
    }
}

/// The digest of a body that is sent in these parts: SHA-256, in hexadecimal.
///
/// It is computed anew for each pod, though most of a view is the same for all: a pod takes far longer to read a view than
/// both sides take to digest it.
#[must_use]
pub fn body_digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let digest = parts.into_iter().fold(Sha256::new(), Digest::chain_update);
    hex(&digest.finalize())
}

fn tag<'a>(key: &hmac::Key, purpose: &[u8], fields: impl IntoIterator<Item = &'a str>) -> hmac::Tag {
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
    fn a_token_is_long_and_visible_and_not_shown() {
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
        assert!(token.is(TEXT));
        for wrong in ["", "correct-horse-batterx", "correct-horse-battery ", "correct-horse"] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_signature_is_good_for_its_request_and_no_other() {
        let token = Token::new(TEXT).unwrap();
        let request = Signed {
            method: "POST",
            path: "/control/on/60",
            key: "a",
            epoch: "7",
            number: "3",
            generation: "1:x",
            time: "5",
            body: "",
        };
        let signature = token.sign(&request);
        assert!(token.signed(&request, &signature));
        let others = [
            Signed { method: "GET", ..request },
            Signed { path: "/control/off/60", ..request },
            Signed { key: "b", ..request },
            Signed { epoch: "8", ..request },
            Signed { number: "4", ..request },
            Signed { generation: "", ..request },
            Signed { time: "6", ..request },
            Signed { body: "x", ..request },
            // The same text, cut otherwise.
            Signed { number: "31", generation: ":x", ..request },
        ];
        for other in others {
            assert!(!token.signed(&other, &signature), "{other:?}");
        }
        assert!(!Token::new("another-horse-battery").unwrap().signed(&request, &signature));
        assert!(!token.signed(&request, &signature.to_uppercase()));
    }

    #[test]
    fn signatures_are_those_of_the_documented_text() {
        let token = Token::new(TEXT).unwrap();
        let body = body_digest([b"{\"key\":".as_slice(), b"\"a\"}"]);
        assert_eq!(body, body_digest([b"{\"key\":\"a\"}".as_slice()]));
        let fields = ["POST", "/control/off", "a", "7", "3", "", "5", body.as_str()];
        let [method, path, key, epoch, number, generation, time, body] = fields;
        let mut text = b"ochopod-request-1".to_vec();
        for field in fields {
            text.extend((field.len() as u64).to_le_bytes());
            text.extend(field.as_bytes());
        }
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TEXT.as_bytes()), &text);
        let request = Signed { method, path, key, epoch, number, generation, time, body };
        assert_eq!(token.sign(&request), hex(expected.as_ref()));
    }
}
