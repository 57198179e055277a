//! Signed requests that were obeyed: none is obeyed again.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use hyper::StatusCode;

use super::{access::Signature, reply::Refusal};

/// Most signatures that are remembered: far more than leaders make for one pod while they are good.
const MOST: usize = 4096;

/// What was obeyed while signatures of that time are good. Only who has the token can add to it.
#[derive(Debug, Default)]
pub(super) struct Obeyed(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    seen: BTreeSet<Signature>,
    /// Whatever was signed up to here may have been forgotten.
    forgotten: u64,
}

impl Obeyed {
    /// Notes that a request is obeyed. Signatures before `stale` (in microseconds since 1970) may be forgotten.
    ///
    /// # Errors
    /// 401 when it may have been obeyed before.
    pub(super) fn note(&self, signature: Signature, stale: u64) -> Result<(), Refusal> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if signature.time <= memory.forgotten || !memory.seen.insert(signature) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the signed request came before: it is obeyed once"));
        }
        while memory.seen.len() > MOST || memory.seen.first().is_some_and(|oldest| oldest.time < stale) {
            let Some(oldest) = memory.seen.pop_first() else { break };
            memory.forgotten = memory.forgotten.max(oldest.time);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(time: u64, text: &str) -> Signature {
        Signature { time, text: text.to_owned(), body: String::new() }
    }

    #[test]
    fn nothing_is_obeyed_twice_whatever_was_forgotten_since() {
        let obeyed = Obeyed::default();
        assert!(obeyed.note(signature(10, "a"), 0).is_ok());
        assert!(obeyed.note(signature(10, "b"), 0).is_ok(), "two leaders may sign at one time");
        assert!(obeyed.note(signature(9, "c"), 0).is_ok(), "requests may overtake each other");
        assert!(obeyed.note(signature(10, "a"), 0).is_err());
        assert!(obeyed.note(signature(20, "d"), 15).is_ok(), "forgets those up to 10");
        assert!(obeyed.note(signature(10, "a"), 0).is_err(), "the clock was set back");
        assert!(obeyed.note(signature(11, "e"), 0).is_ok());
    }

    #[test]
    fn it_remembers_no_more_than_it_may() {
        let obeyed = Obeyed::default();
        for time in 1..=MOST as u64 + 100 {
            assert!(obeyed.note(signature(time, "x"), 0).is_ok());
        }
        assert_eq!(obeyed.0.lock().unwrap().seen.len(), MOST);
        for time in [1, 100, 101, MOST as u64] {
            assert!(obeyed.note(signature(time, "x"), 0).is_err(), "{time}");
        }
    }
}
