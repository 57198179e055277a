//! Quantiles of the last ten minutes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::super::page::{Float, Page};

/// Values are forgotten by steps of this length,
const STEP: Duration = Duration::from_mins(2);
/// and so many are kept, the present one included: a value counts for eight to ten minutes.
const STEPS: u64 = 5;
/// In thousandths.
const QUANTILES: [(&str, usize); 3] = [("0.5", 500), ("0.9", 900), ("0.99", 990)];

/// Every value of these minutes is kept, so quantiles are exact. There are few: a sensor has one a second at most.
#[derive(Debug, Default)]
pub(super) struct Summary {
    began: Option<Instant>,
    /// Oldest first, by their numbers since the first value.
    steps: VecDeque<(u64, Vec<f64>)>,
    sum: f64,
    count: u64,
}

impl Summary {
    pub(super) fn observe(&mut self, value: f64, now: Instant) {
        self.began.get_or_insert(now);
        let present = self.step(now);
        while self.steps.front().is_some_and(|(step, _)| step + STEPS <= present) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((step, values)) if *step == present => values.push(value),
            _ => self.steps.push_back((present, vec![value])),
        }
        self.sum += value;
        self.count += 1;
    }

    pub(super) fn write(&self, page: &mut Page, metric: &str, now: Instant) {
        let present = self.step(now);
        let recent = self.steps.iter().filter(|(step, _)| step + STEPS > present);
        let mut values: Vec<f64> = recent.flat_map(|(_, values)| values).copied().collect();
        values.sort_by(f64::total_cmp);
        for (quantile, thousandths) in QUANTILES {
            let rank = values.len() * thousandths / 1000;
            let value = values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN);
            page.sample(metric, &[("quantile", quantile)], Float(value));
        }
        page.sample(&format!("{metric}_sum"), &[], Float(self.sum));
        page.sample(&format!("{metric}_count"), &[], self.count);
    }

    fn step(&self, now: Instant) -> u64 {
        let since = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        since.as_secs() / STEP.as_secs()
    }
}
