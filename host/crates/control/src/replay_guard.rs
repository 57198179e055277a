//! Signed requests are accepted once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use hyper::StatusCode;

use super::{auth::RequestSignature, reply::ApiError};

/// Maximum number of remembered signatures: far more than leaders make for one pod while they are valid.
const MAX_SIGNATURES: usize = 4096;

/// Remembers accepted signatures while they are valid. Only clients with the token can add to it.
#[derive(Debug, Default)]
pub(super) struct ReplayGuard(Mutex<SeenSignatures>);

#[derive(Debug, Default)]
struct SeenSignatures {
    seen: BTreeSet<RequestSignature>,
    /// Signatures up to this time may be forgotten.
    forgotten: u64,
}

impl SeenSignatures {
    fn may_be_used(&self, signature: &RequestSignature) -> bool {
        signature.time <= self.forgotten || self.seen.contains(signature)
    }
}

impl ReplayGuard {
    /// Checks a signature before the body of its request has arrived. It is not recorded: the body may be another.
    ///
    /// # Errors
    /// 401 if it may have been accepted before.
    pub(super) fn expect_unused(&self, signature: &RequestSignature) -> Result<(), ApiError> {
        let is_used = self.0.lock().unwrap_or_else(PoisonError::into_inner).may_be_used(signature);
        if is_used { Err(replayed()) } else { Ok(()) }
    }

    /// Records an accepted signature. Those before `oldest_valid` (in microseconds since 1970) may be forgotten.
    ///
    /// # Errors
    /// 401 if it may have been accepted before.
    pub(super) fn record(&self, signature: RequestSignature, oldest_valid: u64) -> Result<(), ApiError> {
        let mut seen_signatures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen_signatures.may_be_used(&signature) {
            return Err(replayed());
        }
        seen_signatures.seen.insert(signature);
        while seen_signatures.seen.len() > MAX_SIGNATURES
            || seen_signatures.seen.first().is_some_and(|oldest| oldest.time < oldest_valid)
        {
            let Some(oldest) = seen_signatures.seen.pop_first() else { break };
            seen_signatures.forgotten = seen_signatures.forgotten.max(oldest.time);
        }
        Ok(())
    }
}

fn replayed() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "replayed request: signature already used")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(time: u64, text: &str) -> RequestSignature {
        RequestSignature { time, text: text.to_owned(), body: String::new() }
    }

    #[test]
    fn signature_is_never_accepted_twice() {
        let guard = ReplayGuard::default();
        assert!(guard.record(signature(10, "a"), 0).is_ok());
        assert!(guard.record(signature(10, "b"), 0).is_ok(), "two leaders may sign at one time");
        assert!(guard.record(signature(9, "c"), 0).is_ok(), "requests may arrive out of order");
        assert!(guard.record(signature(10, "a"), 0).is_err());
        assert!(guard.expect_unused(&signature(10, "a")).is_err());
        for _ in 0..2 {
            assert!(guard.expect_unused(&signature(10, "x")).is_ok(), "it is not recorded");
        }
        assert!(guard.record(signature(20, "d"), 15).is_ok(), "forgets those up to 10");
        assert!(guard.record(signature(10, "a"), 0).is_err(), "the clock was set back");
        assert!(guard.record(signature(11, "e"), 0).is_ok());
    }

    #[test]
    fn number_of_remembered_signatures_is_bounded() {
        let guard = ReplayGuard::default();
        for time in 1..=MAX_SIGNATURES as u64 + 100 {
            assert!(guard.record(signature(time, "x"), 0).is_ok());
        }
        assert_eq!(guard.0.lock().unwrap().seen.len(), MAX_SIGNATURES);
        for time in [1, 100, 101, MAX_SIGNATURES as u64] {
            assert!(guard.record(signature(time, "x"), 0).is_err(), "{time}");
        }
    }
}
