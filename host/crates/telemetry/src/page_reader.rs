//! Reader of metrics pages, for tests.

use std::collections::{BTreeMap, BTreeSet};

/// Returns the samples of a page by name and labels, as they are written.
///
/// # Panics
/// Prometheus would reject or misread the page: a sample outside its family, a duplicate family or sample, or a value that is
/// not a number.
#[must_use]
#[allow(clippy::panic, clippy::unwrap_used, reason = "for tests only")]
pub fn read_metrics_page(page: &str) -> BTreeMap<String, String> {
    let mut samples = BTreeMap::new();
    let (mut families, mut family) = (BTreeSet::new(), ("", ""));
    for line in page.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap();
            assert!(families.insert(family.0), "duplicate family {}", family.0);
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let suffixes: &[&str] = match family.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(family.0);
            assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line} outside family {family:?}");
            assert!(value.parse::<f64>().is_ok(), "invalid number in {line}");
            let previous = samples.insert(sample.to_owned(), value.to_owned());
            assert_eq!(previous, None, "duplicate sample {line}");
        }
    }
    assert!(page.is_empty() || page.ends_with('\n'));
    samples
}
