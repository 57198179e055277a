//! Tasks and sensors.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Purpose, Runner,
    config::{Sensor, Task},
    interval::poll_interval,
};

/// Runs a task periodically, except in maintenance mode, until stopped. A run in progress is then terminated and awaited.
pub(super) async fn task(task: Task, runner: Runner, maintenance: watch::Receiver<bool>, stop: CancellationToken) {
    let mut ticks = poll_interval(task.frequency);
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
        if !outcome.is_success() && !stop.is_cancelled() {
            tracing::warn!("{purpose}: {outcome}");
        }
    }
}

/// Runs a sensor in the same way, and records its output if it succeeded.
pub(super) async fn sensor(
    sensor: Sensor,
    runner: Runner,
    maintenance: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut ticks = poll_interval(sensor.poll);
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
        let (outcome, printed) = runner.run_sensor(&purpose, &sensor.check, Some(sensor.limit), &stop).await;
        if outcome.is_success() {
            let recorded = runner.metrics().sensors.record(&sensor.metric, &printed, Instant::now());
            if let Err(error) = recorded {
                tracing::error!("{error}");
            }
        } else if !stop.is_cancelled() {
            tracing::error!("{purpose}: {outcome}");
        }
    }
}
