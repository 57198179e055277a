//! Platforms: what is looked up and registered on each.

mod look_ups;
mod pods;
