use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::telemetry::{HostUsage, PilotMetrics, page::read};

const METRIC: &str = "queue_length";

fn instrument(metric: &str, kind: SensorKind) -> Instrument {
    Instrument { metric: metric.to_owned(), help: "How long it is.".to_owned(), kind }
}

fn measuring(kind: SensorKind) -> Sensors {
    let sensors = Sensors::default();
    sensors.declare(vec![instrument(METRIC, kind)]);
    sensors
}

fn page(sensors: &Sensors, now: Instant) -> String {
    let mut page = Page::default();
    sensors.write(&mut page, now);
    page.text()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/telemetry.json")).unwrap()
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
fn what_containerpilot_recorded_is_recorded() {
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
        let samples = read(&page(&sensors, now));
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
            assert_eq!(samples["queue_length_sum"], Float(sum).to_string(), "{case}");
            assert_eq!(samples["queue_length_count"], outputs.len().to_string(), "{case}");
        }
    }
}

#[test]
fn buckets_and_quantiles_are_those_of_containerpilot() {
    let vectors = vectors();
    let bounds = vectors["histogram_buckets"].as_array().unwrap();
    let text = page(&measuring(SensorKind::Histogram), Instant::now());
    let found: Vec<&str> = text.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let shown =
        |bound: &Value| bound.as_str().map_or_else(|| Float(bound.as_f64().unwrap()).to_string(), str::to_owned);
    assert_eq!(found, bounds.iter().map(shown).collect::<Vec<_>>());
    let samples = read(&page(&measuring(SensorKind::Summary), Instant::now()));
    for quantile in ["0.5", "0.9", "0.99"] {
        assert!(vectors["summary_quantiles"][quantile].is_number());
        assert_eq!(samples[&format!("{METRIC}{{quantile=\"{quantile}\"}}")], "NaN", "nothing was measured yet");
    }
    assert_eq!(samples["queue_length_count"], "0");
}

#[test]
fn output_is_read_as_containerpilot_reads_it() {
    for case in vectors()["parse_output"].as_array().unwrap() {
        // The others have no output.
        let Some(output) = case["stdout"].as_str() else { continue };
        let sensors = measuring(case.get("type").map_or(SensorKind::Gauge, kind));
        let recorded = sensors.record(METRIC, output.as_bytes(), Instant::now());
        let value = &read(&page(&sensors, Instant::now()))[METRIC];
        match &case["value"] {
            Value::Null => assert!(recorded.is_err() && value == "0", "{case}"),
            expected => {
                assert_eq!(*value, expected.as_str().map_or_else(|| expected.to_string(), str::to_owned), "{case}");
            }
        }
    }
}

#[test]
fn an_error_says_whose_value_was_dropped_and_why() {
    let now = Instant::now();
    let sensors = measuring(SensorKind::Counter);
    let told = |printed: &[u8]| sensors.record(METRIC, printed, now).unwrap_err().to_string();
    assert_eq!(
        told(b" Running \"doStuff\"\nwith \xff\n"),
        r#"the sensor queue_length printed "Running \"doStuff\"\nwith �", expected a number"#
    );
    assert_eq!(told("ä".repeat(1000).as_bytes()).matches('ä').count(), REPEATED / 2);
    assert_eq!(told(b"-1"), "the sensor queue_length printed -1, expected a number from 0 on: it is a counter");
    assert!(told(b"NaN").contains("printed NaN"));
    assert_eq!(page(&sensors, now), page(&measuring(SensorKind::Counter), now));
    let undeclared = sensors.record("other", b"1", now).unwrap_err();
    assert_eq!(undeclared.to_string(), "the sensor other is not declared");
}

#[test]
fn values_stay_with_what_is_still_measured_in_the_same_way() {
    let now = Instant::now();
    let sensors = Sensors::default();
    let both = |first, second| vec![instrument("first", first), instrument("second", second)];
    sensors.declare(both(SensorKind::Counter, SensorKind::Gauge));
    for metric in ["first", "second"] {
        sensors.record(metric, b"5", now).unwrap();
    }
    sensors.declare(both(SensorKind::Counter, SensorKind::Counter));
    let samples = read(&page(&sensors, now));
    assert_eq!((&*samples["first"], &*samples["second"]), ("5", "0"));
    sensors.declare(vec![Instrument { help: "Better said.".to_owned(), ..instrument("first", SensorKind::Counter) }]);
    assert_eq!(page(&sensors, now), "# HELP first Better said.\n# TYPE first counter\nfirst 5\n");
    sensors.declare(Vec::new());
    assert_eq!(page(&sensors, now), "");
}

#[test]
fn of_sensors_that_would_tell_the_same_sample_the_later_one_does() {
    for (earlier, later) in [
        (instrument("x", SensorKind::Counter), instrument("x", SensorKind::Gauge)),
        (instrument("x_count", SensorKind::Counter), instrument("x", SensorKind::Summary)),
        (instrument("x", SensorKind::Histogram), instrument("x_bucket", SensorKind::Gauge)),
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
fn a_summary_forgets_after_eight_to_ten_minutes_but_counts_on() {
    let (sensors, began) = (measuring(SensorKind::Summary), Instant::now());
    let after = |seconds| began + Duration::from_secs(seconds);
    let median = |seconds| read(&page(&sensors, after(seconds)))[r#"queue_length{quantile="0.5"}"#].clone();
    for (seconds, value) in [(0, "1"), (119, "2"), (120, "3")] {
        sensors.record(METRIC, value.as_bytes(), after(seconds)).unwrap();
    }
    assert_eq!(median(599), "1");
    assert_eq!(median(600), "3");
    assert_eq!(median(719), "3");
    assert_eq!(median(720), "NaN");
    sensors.record(METRIC, b"7", after(10_000)).unwrap();
    assert_eq!(median(10_000), "7");
    let samples = read(&page(&sensors, after(10_000)));
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
    fn whatever_sensors_print_the_page_is_one(
        outputs in prop::collection::vec((0_usize..5, printed(), 0_u64..2000), 0..40),
    ) {
        let metrics = PilotMetrics::default();
        let kinds = [SensorKind::Counter, SensorKind::Gauge, SensorKind::Histogram, SensorKind::Summary];
        let names = ["c", "g", "h", "s", "undeclared"];
        metrics.sensors.declare(names.iter().zip(kinds).map(|(name, kind)| instrument(name, kind)).collect());
        let mut now = Instant::now();
        for (metric, output, later) in outputs {
            now += Duration::from_secs(later);
            let before = read(&metrics.page(HostUsage::default(), now));
            if metrics.sensors.record(names[metric], &output, now).is_err() {
                let after = read(&metrics.page(HostUsage::default(), now));
                prop_assert_eq!(before, after, "what is dropped changes nothing");
            }
        }
        let samples = read(&metrics.page(HostUsage::default(), now));
        prop_assert!(!samples["c"].starts_with('-') && samples["c"] != "NaN");
        prop_assert_eq!(&samples[r#"h_bucket{le="+Inf"}"#], &samples["h_count"]);
    }
}
