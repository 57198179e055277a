//! The part of Go's `text/template` that configurations use.
