//! What runs again and again for its own sake: tasks, and sensors.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Purpose, Runner,
    cadence::cadence,
    config::{Sensor, Task},
};

/// Runs a task at each of its times, but not during maintenance, until stopped: then one that runs is asked to end, and
/// waited for.
pub(super) async fn task(task: Task, runner: Runner, maintenance: watch::Receiver<bool>, stop: CancellationToken) {
    let mut ticks = cadence(task.frequency);
    let purpose = Purpose::Task(task.name);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if *maintenance.borrow() {
            continue;
        }
        let outcome = runner.run(&purpose, &task.command, Some(task.limit), &stop).await;
        if !outcome.is_well() && !stop.is_cancelled() {
            tracing::warn!("{purpose}: {outcome}");
        }
    }
}

/// Measures at each of a sensor's times in the same way, and hands over what was printed if that went well.
pub(super) async fn sensor(
    sensor: Sensor,
    runner: Runner,
    maintenance: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut ticks = cadence(sensor.poll);
    let purpose = Purpose::Sensor(sensor.metric.clone());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if *maintenance.borrow() {
            continue;
        }
        let (outcome, printed) = runner.measure(&purpose, &sensor.check, Some(sensor.limit), &stop).await;
        if outcome.is_well() {
            let recorded = runner.metrics().sensors.record(&sensor.metric, &printed, Instant::now());
            if let Err(error) = recorded {
                tracing::error!("{error}");
            }
        } else if !stop.is_cancelled() {
            tracing::error!("{purpose}: {outcome}");
        }
    }
}
