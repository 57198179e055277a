//! Registrations of pods.

use std::{collections::BTreeMap, sync::Arc};

use hyper::Uri;
use ochopod_model::{PodId, Pods, PostedView, Registration, View};

use crate::assert_error;

/// Checks that a registration is parsed as it was printed, alone and in a view; its address is valid, or it is
/// rejected.
pub fn registration(bytes: &[u8]) {
    let pod = match Registration::parse(bytes) {
        Ok(pod) => pod,
        Err(error) => return assert_error(&error),
    };
    let printed = serde_json::to_vec(&pod).expect("a registration is JSON");
    assert_eq!(Registration::parse(&printed).as_ref(), Ok(&pod), "printed, it is another");
    match pod.control_address() {
        Ok(address) => {
            let uri: Uri = format!("http://{address}/control/on/60").parse().expect("a valid URI");
            assert_eq!(uri.authority().map(hyper::http::uri::Authority::as_str), Some(&*address));
            assert!(uri.port_u16().is_some_and(|port| port != 0), "{uri}");
            assert_eq!(uri.path(), "/control/on/60");
        }
        Err(error) => assert_error(&error),
    }
    let key = PodId::from("a");
    let pods = Pods::from([(key.clone(), Arc::new(pod))]);
    let view = View { pods: pods.clone(), dependencies: BTreeMap::from([("db".to_owned(), pods)]) };
    let posted = PostedView::new(key, std::sync::Arc::new(view));
    let printed = serde_json::to_vec(&posted).expect("a view is JSON");
    assert_eq!(PostedView::parse(&printed), Ok(posted), "a parsed registration cannot be sent to others");
}
