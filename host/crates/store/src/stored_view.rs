//! Content of the nodes `view` and `snapshot`: JSON while one commit can carry both, gzip otherwise.
//!
//! The Python SDK reads the JSON of `snapshot` only, so `view` is compressed first.

use std::{
    borrow::Cow,
    io::{Read as _, Write as _},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ochopod_model::{View, json};
use serde::{Serialize, de::DeserializeOwned};

use super::{CoordError, MAX_COMMIT_BYTES};

/// Bytes of a commit for everything except views: hash, paths, names of dependencies.
const OVERHEAD_BYTES: usize = 16 * 1024;
/// Most bytes of both nodes together.
const MAX_BYTES: usize = MAX_COMMIT_BYTES - OVERHEAD_BYTES;
/// Most bytes of a node after decompression.
const MAX_DECOMPRESSED_BYTES: u64 = 64 * 1024 * 1024;
/// First bytes of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How a view is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredViewFormat {
    /// `view` and `snapshot` are JSON.
    Plain,
    /// `snapshot` is JSON, `view` is compressed.
    CompressedView,
    /// Both are compressed: pods of the Python SDK cannot read the snapshot.
    Compressed,
}

/// A view as it is stored. The same view is always stored in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredView {
    /// The format.
    pub format: StoredViewFormat,
    pub(crate) view: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
}

impl StoredView {
    /// Encodes a view.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn new(view: &View) -> Result<Self, CoordError> {
        let (whole, snapshot) = (json_of(view)?, json_of(&view.pods)?);
        if whole.len() + snapshot.len() <= MAX_BYTES {
            return Ok(Self { format: StoredViewFormat::Plain, view: whole, snapshot });
        }
        let view = compressed(&whole)?;
        if view.len() + snapshot.len() <= MAX_BYTES {
            return Ok(Self { format: StoredViewFormat::CompressedView, view, snapshot });
        }
        Ok(Self { format: StoredViewFormat::Compressed, view, snapshot: compressed(&snapshot)? })
    }

    /// Returns whether one commit can carry it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.view.len() + self.snapshot.len() <= MAX_BYTES
    }

    /// Returns whether one commit can certainly carry this many bytes of JSON without compression.
    #[must_use]
    pub fn fits_plain(json_bytes: usize) -> bool {
        json_bytes <= MAX_BYTES
    }
}

fn json_of(value: &impl Serialize) -> Result<Vec<u8>, CoordError> {
    serde_json::to_vec(value).map_err(|error| CoordError::Unexpected(error.to_string()))
}

fn compressed(json: &[u8]) -> Result<Vec<u8>, CoordError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let done = encoder.write_all(json).and_then(|()| encoder.finish());
    done.map_err(|error| CoordError::Unexpected(format!("cannot compress view: {error}")))
}

/// Parses the content of `view` or `snapshot`.
///
/// # Errors
/// If it is neither JSON of this type nor such JSON compressed, or is too large.
pub(crate) fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    json::parse(&decompressed(content)?)
}

fn decompressed(content: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !content.starts_with(&GZIP) {
        return Ok(Cow::Borrowed(content));
    }
    let mut bytes = Vec::new();
    let read = GzDecoder::new(content).take(MAX_DECOMPRESSED_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot decompress: {error}"))?;
    if bytes.len() as u64 > MAX_DECOMPRESSED_BYTES {
        return Err(format!("more than {MAX_DECOMPRESSED_BYTES} bytes after decompression"));
    }
    Ok(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ochopod_model::{PodId, Pods, Registration};
    use serde_json::json;

    use super::*;

    /// Returns a view of pods with registrations as large as they usually are.
    fn view(pods: u64) -> View {
        let pod = |seq: u64| {
            let fields = json!({
                "application": "shop/web", "binding": "kubernetes", "cluster": "web", "debug": "false", "node": "agent",
                "ip": format!("10.{}.{}.7", seq / 250, seq % 250), "local": "false", "namespace": "marathon", "seq": seq,
                "port": "8080", "ports": {"8080": 31000 + seq % 1000}, "public": "", "start": "true", "status": "",
                "task": format!("web-{seq}"), "zk": "10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181",
            });
            let registration = Registration::from_fields(fields.as_object().unwrap().clone()).unwrap();
            (PodId::random(), Arc::new(registration))
        };
        View { pods: (0..pods).map(pod).collect(), ..View::default() }
    }

    #[test]
    fn views_of_all_sizes_are_read_as_they_were_stored() {
        for (pods, format) in [
            (0, StoredViewFormat::Plain),
            (1000, StoredViewFormat::Plain),
            (1500, StoredViewFormat::CompressedView),
            (5000, StoredViewFormat::Compressed),
        ] {
            let view = view(pods);
            let stored = StoredView::new(&view).unwrap();
            assert_eq!((stored.format, stored.fits()), (format, true), "{pods} pods");
            assert_eq!(parse::<View>(&stored.view), Ok(view.clone()));
            assert_eq!(parse::<Pods>(&stored.snapshot), Ok(view.pods.clone()));
            assert_eq!(StoredView::new(&view), Ok(stored));
        }
    }

    #[test]
    fn damaged_and_hostile_content_is_an_error() {
        let whole = compressed(br#"{"pods":{},"dependencies":{}}"#).unwrap();
        assert!(parse::<View>(&whole).is_ok());
        for end in 0..whole.len() - 1 {
            assert!(parse::<View>(&whole[..end]).is_err(), "{end}");
        }
        assert!(parse::<View>(&compressed(b"[]").unwrap()).is_err());
        let bomb = compressed(&vec![b' '; 65 * 1024 * 1024]).unwrap();
        assert!(parse::<View>(&bomb).unwrap_err().contains("after decompression"));
    }
}
