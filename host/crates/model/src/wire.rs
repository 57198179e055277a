//! Headers that pods send each other in addition to those of the Python SDK.
//!
//! If the pods of a cluster share a token, a leader signs each request instead of sending the token:
//!
//! ```text
//! Authorization: Ochopod-HMAC-SHA256 key=<target pod>,time=<microseconds since 1970>,body=<digest>,signature=<hex>
//! ```
//!
//! [`Token::sign`](super::Token::sign) defines the signature; `body` is the
//! [digest of the body](super::body_digest).

/// Epoch of the leadership: the transaction that created the leader's lock node.
pub const EPOCH: &str = "x-ochopod-epoch";
/// The configuration to which a request belongs.
pub const GENERATION: &str = "x-ochopod-generation";
/// Number of a request of a leadership: later requests have higher numbers. In a 409: the number that the pod has accepted, which
/// is not below that of the request.
pub const NUMBER: &str = "x-ochopod-number";
/// Highest number that every JSON library reads exactly.
pub const MAX_NUMBER: u64 = 1 << 53;
/// [Digest of everything](super::ContentDigest) in a view. In a request: the view it is about, which the body does not contain as
/// a whole, but as a [difference](super::ViewDifference). In a reply: the view that the pod holds.
pub const VIEW: &str = "x-ochopod-view";
/// The pod for which a request is, if its body does not contain the key.
pub const TARGET: &str = "x-ochopod-target";
/// In a 409: the identity of the pod that answers, which is not the target of the request.
pub const KEY: &str = "x-ochopod-key";

/// `Content-Encoding` of compressed bodies: one or more members, read one after the other (RFC 1952).
pub const GZIP: &str = "gzip";

const SIGNED: &str = "Ochopod-HMAC-SHA256";

/// Credentials in an `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// The token itself, from an operator.
    Bearer(&'a str),
    /// A leader's signature.
    Signature {
        /// The target pod.
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
    /// Parses the header's text. None for anything else.
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

    /// Returns the text of a header with a signature.
    #[must_use]
    pub fn signature(key: &str, time: &str, body: &str, signature: &str) -> String {
        format!("{SIGNED} key={key},time={time},body={body},signature={signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_read_back_as_they_are_written() {
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
