//! Values of sensors, aggregated as by Prometheus' Go client.

mod go_float;
mod histogram;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use ochopod_telemetry::{GoFloat, PrometheusText, is_process_metric};

use self::{histogram::Histogram, summary::Summary};

/// Maximum length of a sensor's output repeated in an error, in bytes.
const MAX_EXCERPT_BYTES: usize = 80;

/// Kind of a sensor's metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorKind {
    /// Sum of the values.
    Counter,
    /// Last value.
    Gauge,
    /// Counts of values by size.
    Histogram,
    /// Quantiles of the values of the last ten minutes.
    Summary,
}

impl SensorKind {
    /// Returns the suffixes of the names of its samples.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
        }
    }
}

/// Metric of one sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorSpec {
    /// Full name; must be valid.
    pub metric: String,
    /// Help text.
    pub help: String,
    /// Kind.
    pub kind: SensorKind,
}

/// Cause of a dropped value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SensorError {
    /// No sensor of this name is declared.
    #[error("unknown sensor {0}")]
    Undeclared(String),
    /// The output is not a number, or too large.
    #[error("sensor {metric}: invalid output \"{printed}\", expected a number")]
    Number {
        /// Name of the metric.
        metric: String,
        /// Start of the output.
        printed: String,
    },
    /// The value would decrease a counter.
    #[error("sensor {metric}: invalid value {value}, expected a number of at least 0 for a counter")]
    Decrease {
        /// Name of the metric.
        metric: String,
        /// The value.
        value: f64,
    },
}

/// Values of all sensors. The page stays valid for any output of theirs.
#[derive(Debug, Default)]
pub struct Sensors(Mutex<BTreeMap<String, SensorSeries>>);

#[derive(Debug)]
struct SensorSeries {
    help: String,
    values: SensorValues,
}

#[derive(Debug)]
enum SensorValues {
    Counter(f64),
    Gauge(f64),
    Histogram(Histogram),
    Summary(Summary),
}

impl Sensors {
    /// Replaces the declared sensors. Those declared before with the same name and kind keep their values.
    ///
    /// Of two that share a sample, the later one is used. Names of the host's metrics ([`is_reserved`]) are ignored. Either
    /// costs a warning.
    pub fn declare(&self, specs: Vec<SensorSpec>) {
        let mut series = self.series();
        let mut before = std::mem::take(&mut *series);
        let mut names = BTreeSet::new();
        for SensorSpec { metric, help, kind } in specs.into_iter().rev() {
            let samples: Vec<String> = kind.suffixes().iter().map(|suffix| format!("{metric}{suffix}")).collect();
            if samples.iter().any(|sample| is_reserved(sample) || names.contains(sample)) {
                tracing::warn!("sensor {metric} ignored: duplicate metric name");
                continue;
            }
            names.extend(samples);
            let kept = before.remove(&metric).map(|series| series.values).filter(|values| values.kind() == kind);
            let values = kept.unwrap_or_else(|| SensorValues::new(kind));
            series.insert(metric, SensorSeries { help, values });
        }
    }

    /// Records a value as printed by a sensor: trimmed, and parsed as by Go's `strconv.ParseFloat`.
    ///
    /// # Errors
    /// The output is not a valid value of this metric. It is dropped.
    pub fn record(&self, metric: &str, printed: &[u8], now: Instant) -> Result<(), SensorError> {
        let printed = String::from_utf8_lossy(printed);
        let printed = printed.trim();
        let value = go_float::parse(printed).ok_or_else(|| {
            let start = printed.get(..printed.floor_char_boundary(MAX_EXCERPT_BYTES)).unwrap_or_default();
            SensorError::Number { metric: metric.to_owned(), printed: start.escape_debug().to_string() }
        })?;
        let mut series = self.series();
        let found = series.get_mut(metric).ok_or_else(|| SensorError::Undeclared(metric.to_owned()))?;
        match &mut found.values {
            SensorValues::Counter(_) if value.is_nan() || value < 0.0 => {
                return Err(SensorError::Decrease { metric: metric.to_owned(), value });
            }
            SensorValues::Counter(sum) => *sum += value,
            SensorValues::Gauge(last) => *last = value,
            SensorValues::Histogram(histogram) => histogram.observe(value),
            SensorValues::Summary(summary) => summary.observe(value, now),
        }
        Ok(())
    }

    pub(super) fn write(&self, page: &mut PrometheusText, now: Instant) {
        for (metric, SensorSeries { help, values }) in &*self.series() {
            match values {
                SensorValues::Counter(sum) => page.single(metric, "counter", help, GoFloat(*sum)),
                SensorValues::Gauge(last) => page.single(metric, "gauge", help, GoFloat(*last)),
                SensorValues::Histogram(histogram) => {
                    page.family(metric, "histogram", help);
                    histogram.write(page, metric);
                }
                SensorValues::Summary(summary) => {
                    page.family(metric, "summary", help);
                    summary.write(page, metric, now);
                }
            }
        }
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<String, SensorSeries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SensorValues {
    fn new(kind: SensorKind) -> Self {
        match kind {
            SensorKind::Counter => Self::Counter(0.0),
            SensorKind::Gauge => Self::Gauge(0.0),
            SensorKind::Histogram => Self::Histogram(Histogram::default()),
            SensorKind::Summary => Self::Summary(Summary::default()),
        }
    }

    fn kind(&self) -> SensorKind {
        match self {
            Self::Counter(_) => SensorKind::Counter,
            Self::Gauge(_) => SensorKind::Gauge,
            Self::Histogram(_) => SensorKind::Histogram,
            Self::Summary(_) => SensorKind::Summary,
        }
    }
}

/// Returns whether the host has a metric of this name, so that sensors must not use it.
#[must_use]
pub(crate) fn is_reserved(metric: &str) -> bool {
    metric.starts_with("ochopod_") || is_process_metric(metric)
}
