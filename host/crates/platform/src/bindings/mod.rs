//! One module for each platform: pure functions over variables, system and results of look-ups.

pub(crate) mod docker;
pub(crate) mod ec2;
pub(crate) mod ecs;
pub(crate) mod kubernetes;
pub(crate) mod local;
pub(crate) mod marathon;
pub(crate) mod nomad;

#[cfg(test)]
mod tests;
