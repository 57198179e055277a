use std::time::Duration;

use ochopod_telemetry::{HostUsage, read_metrics_page};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::metrics::PilotMetrics;

const METRIC: &str = "queue_length";

fn spec(metric: &str, kind: SensorKind) -> SensorSpec {
    SensorSpec { metric: metric.to_owned(), help: "Length of the queue.".to_owned(), kind }
}

fn measuring(kind: SensorKind) -> Sensors {
    let sensors = Sensors::default();
    sensors.declare(vec![spec(METRIC, kind)]);
    sensors
}

fn page(sensors: &Sensors, now: Instant) -> String {
    let mut page = PrometheusText::default();
    sensors.write(&mut page, now);
    page.text()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../../tests/vectors/telemetry.json")).unwrap()
}

fn kind(name: &Value) -> SensorKind {
    match name.as_str().unwrap() {
        "counter" => SensorKind::Counter,
        "gauge" => SensorKind::Gauge,
        "histogram" => SensorKind::Histogram,
        "summary" => SensorKind::Summary,
        other => panic!("{other}"),
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn values_are_recorded_as_by_containerpilot() {
    let now = Instant::now();
    for case in vectors()["record"].as_array().unwrap() {
        let sensors = measuring(kind(&case["type"]));
        let outputs = strings(&case["outputs"]);
        for (at, output) in outputs.iter().enumerate() {
            sensors.record(METRIC, output.as_bytes(), now).unwrap();
            if let Some(text) = case.get("text") {
                let line = strings(text)[at].replace('…', METRIC);
                assert!(page(&sensors, now).lines().any(|found| found == line), "{line} of {case}");
            }
        }
        let samples = read_metrics_page(&page(&sensors, now));
        for (bucket, count) in samples.iter().filter_map(|(name, count)| Some((name.split("{le=\"").nth(1)?, count))) {
            let expected = case["nonzero_buckets"][bucket.trim_end_matches("\"}")].as_u64().unwrap_or_default();
            assert_eq!(*count, expected.to_string(), "{bucket} of {case}");
        }
        if let Some(quantiles) = case["quantiles"].as_object() {
            for (quantile, value) in quantiles {
                let sample = format!("{METRIC}{{quantile=\"{quantile}\"}}");
                assert_eq!(samples[&sample], value.to_string(), "{quantile} of {case}");
            }
        }
        if matches!(kind(&case["type"]), SensorKind::Histogram | SensorKind::Summary) {
            let sum: f64 = outputs.iter().map(|output| output.parse::<f64>().unwrap()).sum();
            assert_eq!(samples["queue_length_sum"], GoFloat(sum).to_string(), "{case}");
            assert_eq!(samples["queue_length_count"], outputs.len().to_string(), "{case}");
        }
    }
}

#[test]
fn buckets_and_quantiles_match_containerpilot() {
    let vectors = vectors();
    let bounds = vectors["histogram_buckets"].as_array().unwrap();
    let text = page(&measuring(SensorKind::Histogram), Instant::now());
    let found: Vec<&str> = text.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let printed =
        |bound: &Value| bound.as_str().map_or_else(|| GoFloat(bound.as_f64().unwrap()).to_string(), str::to_owned);
    assert_eq!(found, bounds.iter().map(printed).collect::<Vec<_>>());
    let samples = read_metrics_page(&page(&measuring(SensorKind::Summary), Instant::now()));
    for quantile in ["0.5", "0.9", "0.99"] {
        assert!(vectors["summary_quantiles"][quantile].is_number());
        assert_eq!(samples[&format!("{METRIC}{{quantile=\"{quantile}\"}}")], "NaN", "no value was measured yet");
    }
    assert_eq!(samples["queue_length_count"], "0");
}

#[test]
fn output_is_parsed_as_by_containerpilot() {
    for case in vectors()["parse_output"].as_array().unwrap() {
        // The others have no output.
        let Some(output) = case["stdout"].as_str() else { continue };
        let sensors = measuring(case.get("type").map_or(SensorKind::Gauge, kind));
        let recorded = sensors.record(METRIC, output.as_bytes(), Instant::now());
        let value = &read_metrics_page(&page(&sensors, Instant::now()))[METRIC];
        match &case["value"] {
            Value::Null => assert!(recorded.is_err() && value == "0", "{case}"),
            expected => {
                assert_eq!(*value, expected.as_str().map_or_else(|| expected.to_string(), str::to_owned), "{case}");
            }
        }
    }
}

#[test]
fn error_names_the_sensor_and_the_cause() {
    let now = Instant::now();
    let sensors = measuring(SensorKind::Counter);
    let error = |printed: &[u8]| sensors.record(METRIC, printed, now).unwrap_err().to_string();
    assert_eq!(
        error(b" Running \"doStuff\"\nwith \xff\n"),
        r#"sensor queue_length: invalid output "Running \"doStuff\"\nwith �", expected a number"#
    );
    assert_eq!(error("ä".repeat(1000).as_bytes()).matches('ä').count(), MAX_EXCERPT_BYTES / 2);
    assert_eq!(error(b"-1"), "sensor queue_length: invalid value -1, expected a number of at least 0 for a counter");
    assert!(error(b"NaN").contains("invalid value NaN"));
    assert_eq!(page(&sensors, now), page(&measuring(SensorKind::Counter), now));
    let undeclared = sensors.record("other", b"1", now).unwrap_err();
    assert_eq!(undeclared.to_string(), "unknown sensor other");
}

#[test]
fn values_are_kept_for_sensors_of_the_same_name_and_kind() {
    let now = Instant::now();
    let sensors = Sensors::default();
    let both = |first, second| vec![spec("first", first), spec("second", second)];
    sensors.declare(both(SensorKind::Counter, SensorKind::Gauge));
    for metric in ["first", "second"] {
        sensors.record(metric, b"5", now).unwrap();
    }
    sensors.declare(both(SensorKind::Counter, SensorKind::Counter));
    let samples = read_metrics_page(&page(&sensors, now));
    assert_eq!((&*samples["first"], &*samples["second"]), ("5", "0"));
    sensors.declare(vec![SensorSpec { help: "Better text.".to_owned(), ..spec("first", SensorKind::Counter) }]);
    assert_eq!(page(&sensors, now), "# HELP first Better text.\n# TYPE first counter\nfirst 5\n");
    sensors.declare(Vec::new());
    assert_eq!(page(&sensors, now), "");
}

#[test]
fn later_one_of_two_sensors_with_a_common_sample_is_used() {
    for (earlier, later) in [
        (spec("x", SensorKind::Counter), spec("x", SensorKind::Gauge)),
        (spec("x_count", SensorKind::Counter), spec("x", SensorKind::Summary)),
        (spec("x", SensorKind::Histogram), spec("x_bucket", SensorKind::Gauge)),
    ] {
        let sensors = Sensors::default();
        sensors.declare(vec![earlier, later.clone()]);
        let alone = Sensors::default();
        alone.declare(vec![later]);
        let now = Instant::now();
        assert_eq!(page(&sensors, now), page(&alone, now));
    }
}

#[test]
fn values_of_a_summary_expire_after_eight_to_ten_minutes_but_stay_counted() {
    let (sensors, began) = (measuring(SensorKind::Summary), Instant::now());
    let after = |seconds| began + Duration::from_secs(seconds);
    let median =
        |seconds| read_metrics_page(&page(&sensors, after(seconds)))[r#"queue_length{quantile="0.5"}"#].clone();
    for (seconds, value) in [(0, "1"), (119, "2"), (120, "3")] {
        sensors.record(METRIC, value.as_bytes(), after(seconds)).unwrap();
    }
    assert_eq!(median(599), "1");
    assert_eq!(median(600), "3");
    assert_eq!(median(719), "3");
    assert_eq!(median(720), "NaN");
    sensors.record(METRIC, b"7", after(10_000)).unwrap();
    assert_eq!(median(10_000), "7");
    let samples = read_metrics_page(&page(&sensors, after(10_000)));
    assert_eq!((&*samples["queue_length_sum"], &*samples["queue_length_count"]), ("13", "4"));
}

fn printed() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<f64>().prop_map(|value| value.to_string().into_bytes()),
        r"[ \n]?[+-]?(inf|NaN|1e400|0x1p-2|1_0|[0-9]{1,5}(\.[0-9]{0,3})?(e[+-]?[0-9]{1,4})?)\n?"
            .prop_map(String::into_bytes),
        ".*".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    #[test]
    fn page_is_valid_for_any_output_of_sensors(
        outputs in prop::collection::vec((0_usize..5, printed(), 0_u64..2000), 0..40),
    ) {
        let metrics = PilotMetrics::default();
        let kinds = [SensorKind::Counter, SensorKind::Gauge, SensorKind::Histogram, SensorKind::Summary];
        let names = ["c", "g", "h", "s", "undeclared"];
        metrics.sensors.declare(names.iter().zip(kinds).map(|(name, kind)| spec(name, kind)).collect());
        let mut now = Instant::now();
        for (metric, output, later) in outputs {
            now += Duration::from_secs(later);
            let before = read_metrics_page(&metrics.render(HostUsage::default(), now));
            if metrics.sensors.record(names[metric], &output, now).is_err() {
                let after = read_metrics_page(&metrics.render(HostUsage::default(), now));
                prop_assert_eq!(before, after, "a dropped value changes the page");
            }
        }
        let samples = read_metrics_page(&metrics.render(HostUsage::default(), now));
        prop_assert!(!samples["c"].starts_with('-') && samples["c"] != "NaN");
        prop_assert_eq!(&samples[r#"h_bucket{le="+Inf"}"#], &samples["h_count"]);
    }
}
