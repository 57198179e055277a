//! Samples and the table.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value, json};

/// Unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    Seconds,
    Mebibytes,
    Percent,
    PerSecond,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value < 10.0 => format!("{value:.1} ms"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Percent => format!("{value:.3} %"),
            Self::Count => format!("{value:.0}"),
            Self::PerSecond if value < 1000.0 => format!("{value:.1} /s"),
            Self::PerSecond => format!("{:.1}k /s", value / 1000.0),
        }
    }
}

/// One line: name, figures, target, and the figure of the Python SDK.
#[derive(Debug)]
struct Row {
    what: &'static str,
    unit: Unit,
    samples: Vec<f64>,
    target: &'static str,
    python: &'static str,
}

impl Row {
    fn median(&self) -> f64 {
        let middle = self.samples.len() / 2;
        match self.samples.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => self.samples[middle],
            _ => f64::midpoint(self.samples[middle - 1], self.samples[middle]),
        }
    }
}

/// All figures, in the order of measurement.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// Medians of an earlier run, by figure.
    baseline: BTreeMap<String, f64>,
}

impl Table {
    /// Returns a table that compares its figures with the medians of a baseline, as [`Table::medians`] writes it. Figures
    /// that the baseline lacks have no ratio.
    pub(crate) fn compared_with(baseline: &str) -> serde_json::Result<Self> {
        Ok(Self { rows: Vec::new(), baseline: serde_json::from_str(baseline)? })
    }

    /// Returns the medians as a JSON object, by figure.
    pub(crate) fn medians(&self) -> Value {
        let medians: Map<String, Value> =
            self.rows.iter().map(|row| (row.what.to_owned(), json!(row.median()))).collect();
        Value::Object(medians)
    }

    /// Adds a line.
    pub(crate) fn add(
        &mut self,
        what: &'static str,
        unit: Unit,
        mut samples: Vec<f64>,
        target: &'static str,
        python: &'static str,
    ) {
        samples.sort_by(f64::total_cmp);
        let row = Row { what, unit, samples, target, python };
        eprintln!("{what}: {}", unit.show(row.median()));
        self.rows.push(row);
    }

    /// Adds a line of times in milliseconds.
    pub(crate) fn times(
        &mut self,
        what: &'static str,
        samples: &[Duration],
        target: &'static str,
        python: &'static str,
    ) {
        let samples = samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect();
        self.add(what, Unit::Milliseconds, samples, target, python);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["", "median", "of baseline", "min – max", "runs", "target", "Python SDK"].map(str::to_owned);
        let rows = self.rows.iter().map(|row| cells(row, self.baseline.get(row.what).copied()));
        let lines: Vec<[String; 7]> = std::iter::once(heads).chain(rows).collect();
        let widths: Vec<usize> =
            (0..7).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                widths.iter().try_for_each(|width| write!(f, "|{:-<1$}", "", width + 2))?;
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

fn cells(row: &Row, baseline: Option<f64>) -> [String; 7] {
    let (first, last) = (row.samples.first().copied(), row.samples.last().copied());
    let spread = match (first, last) {
        (Some(first), Some(last)) if row.samples.len() > 1 => {
            format!("{} – {}", row.unit.show(first), row.unit.show(last))
        }
        _ => String::new(),
    };
    [
        row.what.to_owned(),
        row.unit.show(row.median()),
        baseline
            .filter(|median| *median > 0.0)
            .map(|median| format!("{:.2}", row.median() / median))
            .unwrap_or_default(),
        spread,
        row.samples.len().to_string(),
        row.target.to_owned(),
        row.python.to_owned(),
    ]
}
