//! Look-ups: what a platform answers over HTTP, and what it left in files.
//!
//! [`LookUps::plan`] decides by variables and settings which are needed; none if these name everything. All look-ups
//! run concurrently and end within [`TOTAL_TIMEOUT`]. Answers are validated, redirects are not followed and bodies are
//! limited. A failing look-up is a [`LookUpError`] in the results; the boot continues without its values.

mod ec2;
mod ecs;
mod error;
mod http;
mod kubernetes;
mod mesos;
mod plan;
mod results;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::plan::is_ec2;
pub use self::{
    ec2::InstanceMetadata,
    error::LookUpError,
    plan::{LookUps, OperatorSettings},
    results::{EcsContainer, Instance, KubernetesPod, LookUpResults, NetworkMode},
};

/// Time limit of all look-ups together.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(2);

impl LookUps {
    /// Runs the look-ups concurrently, at most for [`TOTAL_TIMEOUT`].
    ///
    /// # Cancellation safety
    /// Dropping the future closes its connections.
    pub async fn run(self) -> LookUpResults {
        let deadline = Instant::now() + TOTAL_TIMEOUT;
        let Self { ec2, ecs, kubernetes, mesos } = self;
        let instance = async {
            match &ec2 {
                Some(ec2) => Some(ec2.query(deadline).await),
                None => None,
            }
        };
        let container = async {
            match &ecs {
                Some(ecs) => Some(ecs.query(deadline).await),
                None => None,
            }
        };
        let cluster = async {
            match kubernetes {
                Some(request) => request.query(deadline).await,
                None => LookUpResults::default(),
            }
        };
        let (instance, container, mut results) = tokio::join!(instance, container, cluster);
        match instance.transpose() {
            Ok(instance) => results.instance = instance,
            Err(error) => results.problems.push(error),
        }
        match container.transpose() {
            Ok(container) => results.container = container,
            Err(error) => results.problems.push(error),
        }
        let machine = results.instance.as_ref().and_then(|instance| instance.local);
        let unreachable = ecs.zip(results.container.as_ref()).and_then(|(ecs, found)| ecs.unreachable(found, machine));
        results.problems.extend(unreachable);
        if mesos {
            results.store = mesos::store(std::path::Path::new("/"));
        }
        results
    }
}
