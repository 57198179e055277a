//! Quantiles of the values of the last ten minutes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use ochopod_telemetry::{GoFloat, PrometheusText};

/// Length of the steps in which values expire.
const STEP: Duration = Duration::from_mins(2);
/// Number of steps kept, including the current one: values expire after eight to ten minutes.
const STEPS: u64 = 5;
/// Labels of the quantiles with their ranks in thousandths.
const QUANTILES: [(&str, usize); 3] = [("0.5", 500), ("0.9", 900), ("0.99", 990)];

/// Values of the last minutes. All are kept, so that quantiles are exact; a sensor measures at most one per second.
#[derive(Debug, Default)]
pub(super) struct Summary {
    started_at: Option<Instant>,
    /// Values by the number of their step since the first value, oldest first.
    steps: VecDeque<(u64, Vec<f64>)>,
    sum: f64,
    count: u64,
}

impl Summary {
    pub(super) fn observe(&mut self, value: f64, now: Instant) {
        self.started_at.get_or_insert(now);
        let current = self.step(now);
        while self.steps.front().is_some_and(|(step, _)| step + STEPS <= current) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((step, values)) if *step == current => values.push(value),
            _ => self.steps.push_back((current, vec![value])),
        }
        self.sum += value;
        self.count += 1;
    }

    pub(super) fn write(&self, page: &mut PrometheusText, metric: &str, now: Instant) {
        let current = self.step(now);
        let recent = self.steps.iter().filter(|(step, _)| step + STEPS > current);
        let mut values: Vec<f64> = recent.flat_map(|(_, values)| values).copied().collect();
        values.sort_by(f64::total_cmp);
        for (quantile, thousandths) in QUANTILES {
            let rank = values.len() * thousandths / 1000;
            let value = values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN);
            page.sample(metric, &[("quantile", quantile)], GoFloat(value));
        }
        page.sample(&format!("{metric}_sum"), &[], GoFloat(self.sum));
        page.sample(&format!("{metric}_count"), &[], self.count);
    }

    fn step(&self, now: Instant) -> u64 {
        let since = self.started_at.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        since.as_secs() / STEP.as_secs()
    }
}
