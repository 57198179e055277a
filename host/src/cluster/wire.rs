//! Headers with which pods of ours tell each other more than the Python SDK does.
//!
//! Where the pods of a cluster share a token, a leader signs each request instead of sending the token:
//!
//! ```text
//! Authorization: Ochopod-HMAC-SHA256 key=<the pod that is meant>,time=<microseconds since 1970>,body=<digest>,signature=<hex>
//! ```
//!
//! What is signed, and how, is told by [`Token::sign`](super::Token::sign); `body` is the
//! [digest of the body](super::body_digest).

/// The leadership that asks: the transaction that created the leader's lock node.
pub const EPOCH: &str = "x-ochopod-epoch";
/// The configuration that a request belongs to.
pub const GENERATION: &str = "x-ochopod-generation";
/// Counts what a leadership posts: what it posts later has a higher number.
pub const NUMBER: &str = "x-ochopod-number";
/// In a 409: the identity of the pod that answers, which is not the one that was meant.
pub const KEY: &str = "x-ochopod-key";

const SIGNED: &str = "Ochopod-HMAC-SHA256";

/// What an `Authorization` header presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// The token itself, from somebody with curl.
    Bearer(&'a str),
    /// A leader's signature.
    Signature {
        /// The pod that is meant.
        key: &'a str,
        /// When it was signed.
        time: &'a str,
        /// Digest of the body.
        body: &'a str,
        /// The signature.
        signature: &'a str,
    },
}

impl<'a> Credentials<'a> {
    /// Reads the header's text. None for what is neither.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("Bearer") {
            return Some(Self::Bearer(rest.trim()));
        }
        if scheme != SIGNED {
            return None;
        }
        let rest = rest.strip_prefix("key=")?;
        let (rest, signature) = rest.rsplit_once(",signature=")?;
        let (rest, body) = rest.rsplit_once(",body=")?;
        let (key, time) = rest.rsplit_once(",time=")?;
        Some(Self::Signature { key, time, body, signature })
    }

    /// The text of a header that presents a signature.
    #[must_use]
    pub fn signature(key: &str, time: &str, body: &str, signature: &str) -> String {
        format!("{SIGNED} key={key},time={time},body={body},signature={signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_they_are_written() {
        let text = Credentials::signature("a,time=1", "5", "00", "ff");
        let expected = Credentials::Signature { key: "a,time=1", time: "5", body: "00", signature: "ff" };
        assert_eq!(Credentials::parse(&text), Some(expected));
        assert_eq!(Credentials::parse("bearer  a=b "), Some(Credentials::Bearer("a=b")));
        for bad in
            ["", "Bearer", "Basic eA==", "Ochopod-HMAC-SHA256 key=a", "Ochopod-HMAC-SHA256 ", "ochopod-hmac-sha256 x"]
        {
            assert_eq!(Credentials::parse(bad), None, "{bad:?}");
        }
    }
}
