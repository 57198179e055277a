//! Exports of the component: the view that the host lends becomes a [`Cluster`].

use super::{Adapter, Plugin};
use crate::{
    Cluster,
    bindings::{
        exports::ochopod::pod::{lifecycle, model, tools},
        ochopod::pod::types,
    },
};

impl<P: Plugin> lifecycle::Guest for Adapter<P> {
    fn settings() -> lifecycle::LifecycleSettings {
        Self::lifecycle_settings()
    }

    fn initialize() -> Result<(), lifecycle::Failure> {
        Self::initialize()
    }

    fn can_configure(cluster: &types::Cluster) -> Result<(), String> {
        Self::can_configure(&Cluster(cluster))
    }

    fn configure(cluster: &types::Cluster) -> Result<lifecycle::Command, lifecycle::Failure> {
        Self::configure(&Cluster(cluster))
    }

    fn ready(cluster: &types::Cluster, pid: u32) -> Result<(), String> {
        Self::ready(&Cluster(cluster), pid)
    }

    fn configured(cluster: &types::Cluster) -> Result<Option<String>, String> {
        Self::configured(&Cluster(cluster))
    }

    fn sanity_check(pid: u32) -> Result<lifecycle::Health, String> {
        Self::sanity_check(pid)
    }

    fn signaled(body: String, pid: Option<u32>) -> Result<String, String> {
        Self::signaled(&body, pid)
    }

    fn tear_down(pid: u32) -> Result<(), String> {
        Self::tear_down(pid)
    }

    fn finalize() -> Result<(), String> {
        Self::finalize()
    }
}

impl<P: Plugin> model::Guest for Adapter<P> {
    fn settings() -> model::ModelSettings {
        Self::model_settings()
    }

    fn probe(cluster: &types::Cluster) -> Result<Option<String>, String> {
        Self::probe(&Cluster(cluster))
    }

    fn reconcile(cluster: &types::Cluster) -> Result<(), String> {
        Self::reconcile(&Cluster(cluster))
    }
}

impl<P: Plugin> tools::Guest for Adapter<P> {
    fn list() -> Vec<tools::Tool> {
        Self::list()
    }

    fn run(name: String, arguments: Vec<String>, uploads: Vec<String>) -> Result<tools::Output, String> {
        Self::run(&name, &arguments, &uploads)
    }
}
