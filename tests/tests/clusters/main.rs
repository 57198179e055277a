//! Real clusters that plugins form, whose servers every test run has: one file per plugin.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]
