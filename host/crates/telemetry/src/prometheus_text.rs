//! Prometheus' text format, version 0.0.4, as its Go client writes it.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

/// Builder of a metrics page. Results of writing to a string are ignored, because it cannot fail.
#[derive(Debug, Default)]
pub struct PrometheusText(String);

impl PrometheusText {
    /// Starts a family, whose samples must follow before the next family starts.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a sample to the family that was started last. Labels are escaped.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let label = |(name, value): &(&str, &str)| {
            let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{name}=\"{escaped}\"")
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// Adds a family of one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Adds a counter of one sample.
    pub fn total(&mut self, name: &str, help: &str, count: &AtomicU64) {
        self.single(name, "counter", help, count.load(Ordering::Relaxed));
    }

    /// Returns the page.
    #[must_use]
    pub fn text(self) -> String {
        self.0
    }
}

/// A number in Go's notation: the shortest one that is unambiguous, `+Inf`, `NaN`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoFloat(pub f64);

impl fmt::Display for GoFloat {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_in_go() {
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
            assert_eq!(GoFloat(value).to_string(), printed);
        }
    }

    #[test]
    fn labels_and_help_texts_are_escaped() {
        let mut page = PrometheusText::default();
        page.sample("x", &[("label", "a\"b\\c\nd"), ("other", "")], 1);
        assert_eq!(page.text(), "x{label=\"a\\\"b\\\\c\\nd\",other=\"\"} 1\n");
        let mut page = PrometheusText::default();
        page.family("x", "gauge", "a \"path\" C:\\x,\non two lines");
        assert_eq!(page.text(), "# HELP x a \"path\" C:\\\\x,\\non two lines\n# TYPE x gauge\n");
    }
}
