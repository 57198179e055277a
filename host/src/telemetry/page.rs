//! What Prometheus reads: its text format, version 0.0.4, as its client for Go prints it.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

/// A page in the making. Writing to a string cannot fail, so results are let go.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family of samples: all of them follow before the next one begins.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let label = |(name, value): &(&str, &str)| {
            let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{name}=\"{escaped}\"")
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    pub(super) fn total(&mut self, name: &str, help: &str, count: &AtomicU64) {
        self.single(name, "counter", help, count.load(Ordering::Relaxed));
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// A number as Go prints it: as short as it can be told apart from others, `+Inf`, `NaN`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Float(pub(super) f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let scientific = format!("{value:e}");
        let parts = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse().ok()?)));
        match parts {
            Some((digits, exponent @ (..-4 | 6..))) => write!(f, "{digits}e{exponent:+03}"),
            _ => write!(f, "{value}"),
        }
    }
}

/// The samples of a page by name and labels, as they are written.
///
/// # Panics
/// When Prometheus would refuse or mistake it: a sample outside its family, a family or a sample that is there twice, a value
/// that is no number.
#[cfg(test)]
pub(crate) fn read(page: &str) -> std::collections::BTreeMap<String, String> {
    let mut samples = std::collections::BTreeMap::new();
    let (mut families, mut family) = (std::collections::BTreeSet::new(), ("", ""));
    for line in page.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').unwrap();
            assert!(families.insert(family.0), "the family {} is there twice", family.0);
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let suffixes: &[&str] = match family.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(family.0);
            assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line} is not of {family:?}");
            assert!(value.parse::<f64>().is_ok(), "{line} has no number");
            let twice = samples.insert(sample.to_owned(), value.to_owned());
            assert_eq!(twice, None, "{line} is there twice");
        }
    }
    assert!(page.is_empty() || page.ends_with('\n'));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_go() {
        for (value, printed) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1.2, "1.2"),
            (-4.5, "-4.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1_459_789_234.09, "1.45978923409e+09"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Float(value).to_string(), printed);
        }
    }

    #[test]
    fn labels_and_helps_are_escaped() {
        let mut page = Page::default();
        page.sample("x", &[("label", "a\"b\\c\nd"), ("other", "")], 1);
        assert_eq!(page.text(), "x{label=\"a\\\"b\\\\c\\nd\",other=\"\"} 1\n");
        let mut page = Page::default();
        page.family("x", "gauge", "a \"path\" C:\\x,\non two lines");
        assert_eq!(page.text(), "# HELP x a \"path\" C:\\\\x,\\non two lines\n# TYPE x gauge\n");
    }
}
