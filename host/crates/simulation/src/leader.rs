//! Simulated outside of the leader: requests to pods over the simulated network, and a probe that takes time.

use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use http_body_util::BodyExt as _;
use ochopod_client::{ClientError, ControlContent, ControlRequest, Reply};
use ochopod_control::{PodViews, ViewHeaders, ViewReadError};
use ochopod_leader::{ClusterModel, Event, PeerTransport, Step, StepObserver};
use ochopod_lifecycle::{ControlTask, Request};
use ochopod_model::{PodId, PostedView};
use ochopod_store::MembershipHandle;
use tokio::time::sleep;

use super::{fault_rates::FaultSwitch, invariants::InvariantChecker, network::SimNetwork};

/// Connections of one host to the control APIs of others.
pub(super) struct SimTransport {
    /// The pod of the host.
    pub(super) id: PodId,
    /// Its address.
    pub(super) address: String,
    pub(super) network: SimNetwork,
    pub(super) checker: InvariantChecker,
}

impl PeerTransport for SimTransport {
    fn post(&self, request: ControlRequest, timeout: Duration) -> BoxFuture<'static, Result<Reply, ClientError>> {
        self.checker.posted(&self.id, &request);
        let (network, from, to) = (self.network.clone(), self.address.clone(), request.address.clone());
        async move { network.post(from, to, request, timeout).await }.boxed()
    }
}

/// Returns the request as the control API of its pod reads it.
pub(super) async fn read(request: ControlRequest, views: &PodViews) -> Result<Request, ViewReadError> {
    let body = request.body.collect().await.unwrap().to_bytes();
    let target = (request.content != ControlContent::Whole).then(|| request.pod.clone());
    let view = match &request.content {
        ControlContent::Difference(view) => Some(view.clone()),
        ControlContent::Whole | ControlContent::Nothing => None,
    };
    let headers = ViewHeaders { target, view, is_of_epoch: true };
    let view = || {
        let view = views.read(&headers, &body)?;
        assert_eq!(view.key, request.pod, "the view is posted with the key of its pod");
        Ok::<_, ViewReadError>(view)
    };
    let task = match request.task {
        "check" => ControlTask::Check(view()?),
        "off" => ControlTask::Off,
        "on" => ControlTask::On(Some(view()?)),
        "ok" => ControlTask::Ok(view()?),
        other => panic!("unknown task {other:?}"),
    };
    Ok(Request {
        task,
        epoch: Some(request.epoch),
        number: Some(request.number),
        generation: Some(request.generation),
        limit: Duration::from_secs(request.limit_seconds),
    })
}

/// A model whose probe reports nothing, and whose reconciliation may fail.
pub(super) struct SimModel(pub(super) FaultSwitch);

impl ClusterModel for SimModel {
    fn probe<'a>(&'a self, _: &'a PostedView, _: Duration) -> BoxFuture<'a, Result<Option<String>, String>> {
        async {
            sleep(self.0.latency()).await;
            Ok(None)
        }
        .boxed()
    }

    fn reconcile<'a>(&'a self, _: &'a PostedView, _: Duration) -> BoxFuture<'a, Result<(), String>> {
        async {
            sleep(self.0.latency()).await;
            if self.0.occurs(|rates| rates.refused) { Err("no".to_owned()) } else { Ok(()) }
        }
        .boxed()
    }
}

/// Returns an observer that verifies the steps of a pod's leader.
pub(super) fn observer(id: PodId, member: MembershipHandle, checker: InvariantChecker) -> StepObserver {
    Box::new(move |step: &Step<'_>| {
        if let Event::Observation(observation) = step.event {
            checker.observed(&id, observation);
        }
        let session = member.watch().borrow().state;
        checker.leader_stepped(&id, step, session);
    })
}
