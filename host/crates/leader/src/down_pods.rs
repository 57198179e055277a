//! Pods of the cluster that are off, dead, not ready or cordoned, for `status` and the metrics.

use std::sync::Arc;

use ochopod_model::{
    Pods, Registration,
    status::{DownPods, PodState, ProcessState, single_line},
};
use ochopod_store::{Observation, States};

/// Number of pods that `status` names; the others are counted.
const MAX_NAMED: usize = 8;
/// Longest reason that `status` repeats, in bytes.
const MAX_REASON_BYTES: usize = 120;
/// Longest address that `status` repeats, in bytes.
const MAX_ADDRESS_BYTES: usize = 64;

/// The pods that are off, dead, not ready or cordoned, as last observed.
#[derive(Debug, Default)]
pub(super) struct DownPodList {
    observation: Option<Arc<Observation>>,
    states: Arc<States>,
    report: DownPods,
}

impl DownPodList {
    /// Replaces the observed registrations.
    pub(super) fn set_observation(&mut self, observation: Arc<Observation>) {
        self.observation = Some(observation);
        self.update();
    }

    /// Replaces the published states.
    pub(super) fn set_states(&mut self, states: Arc<States>) {
        self.states = states;
        self.update();
    }

    /// Returns numbers and list of these pods; the list is omitted if `listed` is false.
    pub(super) fn report(&self, listed: bool) -> DownPods {
        DownPods { text: if listed { self.report.text.clone() } else { String::new() }, ..self.report }
    }

    fn update(&mut self) {
        let pods = self.observation.as_ref().map(|observation| &observation.pods);
        self.report = pods.map(|pods| down_pods(pods, &self.states)).unwrap_or_default();
    }
}

/// Lists the pods that are off or dead by seq, address and reason.
///
/// Pods without a state, such as those of the Python SDK, are listed only if their registration reports them as dead.
fn down_pods(pods: &Pods, states: &States) -> DownPods {
    let mut by_seq: Vec<_> = pods.iter().map(|(id, pod)| (pod, states.get(id))).collect();
    by_seq.sort_by_key(|(pod, _)| pod.seq());
    let (mut off, mut dead, mut unready, mut cordoned) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (pod, state) in by_seq {
        let reason = state.and_then(|state| state.reason.as_deref());
        if let Some(cordon) = state.and_then(|state| state.cordon.as_deref()) {
            cordoned.push((&**pod, Some(cordon)));
        } else if pod.is_dead() || state.is_some_and(|state| state.process == ProcessState::Dead) {
            dead.push((&**pod, reason));
        } else if state.is_some_and(PodState::is_off) {
            off.push((&**pod, reason));
        } else if state.is_some_and(PodState::is_unready) {
            unready.push((&**pod, reason));
        }
    }
    let lists = [("off", &off), ("not ready", &unready), ("cordoned", &cordoned), ("dead", &dead)];
    let texts = lists.into_iter().filter(|(_, pods)| !pods.is_empty()).map(|(name, pods)| list(name, pods));
    DownPods { text: texts.collect::<Vec<_>>().join(", "), off: off.len(), dead: dead.len() }
}

/// Returns one kind of pods as text: `off: #2 10.0.0.2:8080 (turned off by /control/off), #4 …, and 7 more`.
fn list(name: &str, pods: &[(&Registration, Option<&str>)]) -> String {
    let mut items: Vec<String> = pods.iter().take(MAX_NAMED).map(|(pod, reason)| item(pod, *reason)).collect();
    if pods.len() > MAX_NAMED {
        items.push(format!("and {} more", pods.len() - MAX_NAMED));
    }
    format!("{name}: {}", items.join(", "))
}

fn item(pod: &Registration, reason: Option<&str>) -> String {
    let seq = pod.seq();
    let address = pod.control_address().unwrap_or_else(|_| "without a valid address".to_owned());
    let address = single_line(&address, MAX_ADDRESS_BYTES);
    match reason {
        Some(reason) => format!("#{seq} {address} ({})", single_line(reason, MAX_REASON_BYTES)),
        None => format!("#{seq} {address}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ochopod_model::PodId;
    use serde_json::{Value, json};

    use super::*;

    fn pod(fields: &Value) -> Arc<Registration> {
        Arc::new(Registration::from_fields(fields.as_object().unwrap().clone()).unwrap())
    }

    fn state(process: ProcessState, reason: Option<&str>) -> PodState {
        PodState {
            process,
            reason: reason.map(str::to_owned),
            cordon: None,
            role: None,
            plugin: None,
            ..PodState::default()
        }
    }

    fn registered(seq: u64, status: &str) -> Arc<Registration> {
        pod(&json!({"seq": seq, "ip": format!("10.0.0.{seq}"), "port": "8080", "status": status}))
    }

    #[test]
    fn down_pods_are_listed_by_seq_with_address_and_reason() {
        let pods = Pods::from([
            (PodId::from("z"), registered(1, "")),
            (PodId::from("y"), registered(2, "")),
            (PodId::from("x"), registered(3, "dead")),
            (PodId::from("w"), registered(4, "")),
            (PodId::from("python"), registered(5, "")),
            (PodId::from("v"), registered(6, "")),
            (PodId::from("u"), registered(7, "")),
        ]);
        let states = States::from([
            (PodId::from("y"), state(ProcessState::Stopped, Some("turned off by /control/off"))),
            (PodId::from("z"), state(ProcessState::Stopped, Some("not started: start=false"))),
            (PodId::from("w"), state(ProcessState::Dead, Some("killed by /control/kill"))),
            (PodId::from("v"), state(ProcessState::Running, None)),
            (PodId::from("u"), state(ProcessState::Stopped, None)),
            (PodId::from("gone"), state(ProcessState::Dead, Some("of no interest"))),
        ]);
        let down = down_pods(&pods, &states);
        assert_eq!((down.off, down.dead), (2, 2));
        assert_eq!(
            down.text,
            "off: #1 10.0.0.1:8080 (not started: start=false), #2 10.0.0.2:8080 (turned off by /control/off), \
             dead: #3 10.0.0.3:8080, #4 10.0.0.4:8080 (killed by /control/kill)"
        );
        assert_eq!(down_pods(&Pods::new(), &states), DownPods::default());
    }

    #[test]
    fn list_is_bounded_for_any_registration_and_reason() {
        let fields = |seq| json!({"seq": seq, "ip": "x".repeat(5000), "port": "1", "status": "dead"});
        let pods: Pods = (0..1000).map(|seq| (PodId::from(format!("{seq}").as_str()), pod(&fields(seq)))).collect();
        let reason = "line\n".repeat(50);
        let states: States = pods.keys().map(|id| (id.clone(), state(ProcessState::Dead, Some(&reason)))).collect();
        let text = down_pods(&pods, &states).text;
        assert!(text.len() < 2000 && text.ends_with(", and 992 more") && !text.contains('\n'), "{text}");
        let odd = Pods::from([(PodId::from("a"), pod(&json!({"seq": 1, "ip": 7, "status": "dead"})))]);
        assert_eq!(down_pods(&odd, &States::new()).text, "dead: #1 without a valid address");
    }
}
