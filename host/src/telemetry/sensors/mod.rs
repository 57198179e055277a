//! What sensors measured, as Prometheus' client for Go would hold it.

mod histogram;
mod number;
mod summary;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use self::{histogram::Histogram, summary::Summary};
use super::{
    page::{Float, Page},
    pilot_metrics,
};

/// Most of what a sensor printed that an error repeats, in bytes.
const REPEATED: usize = 80;

/// What becomes of a sensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorKind {
    /// They are added up.
    Counter,
    /// The last one counts.
    Gauge,
    /// They are counted by size.
    Histogram,
    /// Their quantiles over the last ten minutes are told.
    Summary,
}

impl SensorKind {
    /// What ends the names of its samples.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
        }
    }
}

/// What one sensor measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    /// The whole name of the metric: a valid one.
    pub metric: String,
    /// What it is.
    pub help: String,
    /// What becomes of its values.
    pub kind: SensorKind,
}

/// Why a value was dropped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SensorError {
    /// Nothing is measured under this name.
    #[error("the sensor {0} is not declared")]
    Undeclared(String),
    /// It is no number, or one that is too large.
    #[error("the sensor {metric} printed \"{printed}\", expected a number")]
    Number {
        /// Whose value it would have been.
        metric: String,
        /// The beginning of what was printed.
        printed: String,
    },
    /// A counter cannot go back.
    #[error("the sensor {metric} printed {value}, expected a number from 0 on: it is a counter")]
    Decrease {
        /// Whose value it would have been.
        metric: String,
        /// What was printed.
        value: f64,
    },
}

/// The values of all sensors. Whatever they print, nothing stops and the page stays valid.
#[derive(Debug, Default)]
pub struct Sensors(Mutex<BTreeMap<String, Measured>>);

#[derive(Debug)]
struct Measured {
    help: String,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Counter(f64),
    Gauge(f64),
    Histogram(Histogram),
    Summary(Summary),
}

impl Sensors {
    /// Measures these from now on, and no others. Those that were measured before in the same way keep their values.
    ///
    /// Of two that would have a sample in common the later one counts. What the host tells by itself is no sensor's
    /// ([`is_taken`]). Either costs a warning.
    pub fn declare(&self, instruments: Vec<Instrument>) {
        let mut measured = self.measured();
        let mut before = std::mem::take(&mut *measured);
        let mut names = BTreeSet::new();
        for Instrument { metric, help, kind } in instruments.into_iter().rev() {
            let samples: Vec<String> = kind.suffixes().iter().map(|suffix| format!("{metric}{suffix}")).collect();
            if samples.iter().any(|sample| is_taken(sample) || names.contains(sample)) {
                tracing::warn!("the sensor {metric} is left out: something else tells metrics of its name");
                continue;
            }
            names.extend(samples);
            let kept = before.remove(&metric).map(|measured| measured.values).filter(|values| values.kind() == kind);
            let values = kept.unwrap_or_else(|| Values::new(kind));
            measured.insert(metric, Measured { help, values });
        }
    }

    /// Takes a value as a sensor printed it: blanks around it do not count, and it is read as Go's `strconv.ParseFloat` does.
    ///
    /// # Errors
    /// When it is no value for this metric; it is dropped then.
    pub fn record(&self, metric: &str, printed: &[u8], now: Instant) -> Result<(), SensorError> {
        let printed = String::from_utf8_lossy(printed);
        let printed = printed.trim();
        let value = number::parse(printed).ok_or_else(|| {
            let beginning = printed.get(..printed.floor_char_boundary(REPEATED)).unwrap_or_default();
            SensorError::Number { metric: metric.to_owned(), printed: beginning.escape_debug().to_string() }
        })?;
        let mut measured = self.measured();
        let found = measured.get_mut(metric).ok_or_else(|| SensorError::Undeclared(metric.to_owned()))?;
        match &mut found.values {
            Values::Counter(_) if value.is_nan() || value < 0.0 => {
                return Err(SensorError::Decrease { metric: metric.to_owned(), value });
            }
            Values::Counter(sum) => *sum += value,
            Values::Gauge(last) => *last = value,
            Values::Histogram(histogram) => histogram.observe(value),
            Values::Summary(summary) => summary.observe(value, now),
        }
        Ok(())
    }

    pub(super) fn write(&self, page: &mut Page, now: Instant) {
        for (metric, Measured { help, values }) in &*self.measured() {
            match values {
                Values::Counter(sum) => page.single(metric, "counter", help, Float(*sum)),
                Values::Gauge(last) => page.single(metric, "gauge", help, Float(*last)),
                Values::Histogram(histogram) => {
                    page.family(metric, "histogram", help);
                    histogram.write(page, metric);
                }
                Values::Summary(summary) => {
                    page.family(metric, "summary", help);
                    summary.write(page, metric, now);
                }
            }
        }
    }

    fn measured(&self) -> MutexGuard<'_, BTreeMap<String, Measured>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Values {
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

/// Whether the host tells a metric of this name by itself, so that no sensor may.
#[must_use]
pub fn is_taken(metric: &str) -> bool {
    metric.starts_with("ochopod_") || pilot_metrics::OF_THE_PROCESS.iter().any(|(name, _, _)| *name == metric)
}
