//! Real clusters that plugins form, with servers that only `make setup-clusters` installs: one file per plugin.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod patroni;
mod rabbitmq;
