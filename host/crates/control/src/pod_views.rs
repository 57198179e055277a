//! Views in requests of leaders: whole, or named and made from one that this pod holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use hyper::{
    StatusCode,
    header::{HeaderMap, HeaderValue},
};
use ochopod_http::Reply;
use ochopod_model::{ContentDigest, DifferenceError, HeldViews, PodId, PostedView, View, ViewError, wire};

use super::{body, reply::ApiError};

/// Views that the pods of one process hold: each exists once, however many pods hold it.
#[derive(Debug, Default)]
pub struct SharedViews(Mutex<BTreeMap<ContentDigest, Weak<View>>>);

impl SharedViews {
    fn get(&self, digest: &ContentDigest) -> Option<Arc<View>> {
        self.views().get(digest).and_then(Weak::upgrade)
    }

    /// Adds a view, unless it is there. Returns the one that is there.
    fn share(&self, digest: ContentDigest, view: Arc<View>) -> Arc<View> {
        let mut views = self.views();
        if let Some(shared) = views.get(&digest).and_then(Weak::upgrade) {
            return shared;
        }
        views.retain(|_, view| view.strong_count() > 0);
        views.insert(digest, Arc::downgrade(&view));
        view
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<ContentDigest, Weak<View>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The views that a pod holds. Shared by all of its requests.
#[derive(Debug, Default)]
pub struct PodViews {
    held: Mutex<HeldViews>,
    shared: Arc<SharedViews>,
}

/// How a request names its pod and its view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewHeaders {
    /// The pod for which it is, if a header says so.
    pub target: Option<PodId>,
    /// The view that the body does not contain as a whole.
    pub view: Option<ContentDigest>,
    /// Whether the sender uses views that the pod holds: it sends an epoch. Leaders of the Python SDK do not.
    pub is_of_epoch: bool,
}

/// A view that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewReadError {
    /// The body is not a whole view.
    #[error(transparent)]
    Whole(#[from] ViewError),
    /// The named view cannot be made.
    #[error(transparent)]
    Named(#[from] DifferenceError),
    /// The view is named, the pod is not.
    #[error("missing header {}: {} requires it", wire::TARGET, wire::VIEW)]
    NoTarget,
}

impl ViewReadError {
    /// Returns the status code of the reply: 412 if the sender has to send the whole view.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Named(DifferenceError::NotHeld(_) | DifferenceError::Mismatch(_)) => StatusCode::PRECONDITION_FAILED,
            Self::Named(DifferenceError::Size) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Whole(_) | Self::Named(_) | Self::NoTarget => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the reply to the request.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        ApiError::from(self).into()
    }
}

impl From<ViewReadError> for ApiError {
    fn from(error: ViewReadError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl ViewHeaders {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// 400 if one of them is duplicate or not visible ASCII.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self {
            target: body::header(headers, wire::TARGET)?.map(PodId::from),
            view: body::header(headers, wire::VIEW)?.map(ContentDigest::from),
            is_of_epoch: headers.contains_key(wire::EPOCH),
        })
    }
}

impl PodViews {
    /// Creates the views of a pod, which holds none yet.
    #[must_use]
    pub fn new(shared: Arc<SharedViews>) -> Self {
        Self { held: Mutex::default(), shared }
    }

    /// Reads the view of a request and holds it.
    ///
    /// # Errors
    /// If the view is invalid, or is named and cannot be made from what the pod holds.
    pub fn read(&self, headers: &ViewHeaders, body: &[u8]) -> Result<PostedView, ViewReadError> {
        let Some(view) = &headers.view else {
            let mut posted = PostedView::parse(body)?;
            if headers.is_of_epoch {
                let digest = ContentDigest::of(&posted.view);
                posted.view = self.shared.share(digest.clone(), posted.view);
                self.held().hold(digest, Arc::clone(&posted.view));
            }
            return Ok(posted);
        };
        let target = headers.target.clone().ok_or(ViewReadError::NoTarget)?;
        let mut held = self.held();
        // Another pod of this process has made it.
        if let Some(shared) = self.shared.get(view) {
            held.hold(view.clone(), shared);
        }
        let posted = held.resolve(view, target, body)?;
        if let Some((digest, view)) = held.newest() {
            self.shared.share(digest.clone(), Arc::clone(view));
        }
        Ok(posted)
    }

    /// Adds the newest view that the pod holds to a reply, if there is one.
    pub fn report(&self, reply: &mut Reply) {
        let newest = self.held().newest().and_then(|(view, _)| HeaderValue::from_str(view.as_str()).ok());
        if let Some(view) = newest {
            reply.headers_mut().insert(wire::VIEW, view);
        }
    }

    fn held(&self) -> MutexGuard<'_, HeldViews> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
