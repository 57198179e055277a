//! The persistent nodes above registrations, lock nodes and instances of services.

use futures_util::future::{join_all, try_join_all};
use tracing::warn;

use super::{CoordError, Coordination, Exposure, Mode, NodeAccess, Op, layout::Layout};

/// Lists the names of registrations and lock nodes; creates the nodes above them if they are missing.
pub(super) async fn ensure_and_list(
    session: &dyn Coordination,
    layout: &Layout,
) -> Result<(Vec<String>, Vec<String>), CoordError> {
    let names = if let Some(names) = names(session, layout).await? {
        names
    } else {
        let denied = ensure_nodes(session, layout.parents()).await?;
        let gone = || CoordError::Unavailable(format!("nodes of {} are deleted concurrently", layout.root()));
        names(session, layout).await?.ok_or_else(|| denied.unwrap_or_else(gone))?
    };
    let others = [layout.view(), layout.paused()].map(|path| (path, NodeAccess::Cluster));
    verify(session, layout.parents().into_iter().chain(others)).await?;
    Ok(names)
}

/// Verifies that no other client may change one of the nodes, if ACLs must be strict.
///
/// # Errors
/// [`CoordError::Exposed`] with the findings and their repair; any error of the reads.
pub async fn verify(
    session: &dyn Coordination,
    nodes: impl IntoIterator<Item = (String, NodeAccess)>,
) -> Result<(), CoordError> {
    let reads = nodes.into_iter().map(|(path, access)| async move { session.exposure(&path, access).await });
    let exposures: Vec<Exposure> = try_join_all(reads).await?.into_iter().flatten().collect();
    let Some(Exposure { servers, .. }) = exposures.first() else { return Ok(()) };
    let findings: Vec<&str> = exposures.iter().map(|exposure| &*exposure.finding).collect();
    let repairs: Vec<&str> = exposures.iter().map(|exposure| &*exposure.repair).collect();
    Err(CoordError::Exposed(format!(
        "{}, expected others to read, and to create in shared parents only; to repair it, run `zkCli.sh -server {servers}` \
         and enter: addauth digest USER:PASSWORD; {} (or accept it with --zk-strict=false)",
        findings.join(", "),
        repairs.join("; ")
    )))
}

/// Creates missing persistent nodes, parents first. Returns the first denial, which does not prove that a node is missing: a
/// client without permission to create is denied in either case.
///
/// # Errors
/// Any failure other than a denial or an existing node.
pub async fn ensure_nodes(
    session: &dyn Coordination,
    nodes: impl IntoIterator<Item = (String, NodeAccess)>,
) -> Result<Option<CoordError>, CoordError> {
    session.create_root().await?;
    // The store executes the requests of a session in order: a parent exists when its child is created.
    let creations = nodes.into_iter().map(|(path, access)| {
        let ensure_nodes = Op::Create { path, data: Vec::new(), mode: Mode::Persistent, access };
        session.commit(vec![ensure_nodes])
    });
    let mut denied = None;
    for created in join_all(creations).await {
        match created {
            // It exists, perhaps created by another pod that is starting now.
            Ok(_) | Err(CoordError::Conflict { .. }) => {}
            Err(error @ CoordError::AccessDenied(_)) => denied = denied.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(denied)
}

/// Lists the names; none unless all of the nodes exist.
async fn names(session: &dyn Coordination, layout: &Layout) -> Result<Option<(Vec<String>, Vec<String>)>, CoordError> {
    let (pods, locks, hash) = (layout.pods(), layout.coordinator(), layout.hash());
    let read = tokio::try_join!(session.children(&pods), session.children(&locks), session.read(&hash))?;
    let (Some(pods), Some(locks), Some(_)) = read else { return Ok(None) };
    Ok(Some((pods, locks)))
}

/// Warns about existing nodes with more, or fewer, permissions for others than if this pod had created them.
pub(super) async fn warn_acl_mismatch(session: &dyn Coordination, layout: &Layout) {
    for (path, access) in layout.parents() {
        // Only a warning: nodes that cannot be read are skipped.
        if let Ok(Some(permissions)) = session.acl_mismatch(&path, access).await {
            warn!(
                path,
                world = permissions,
                "existing node keeps an ACL that differs from the settings; change it with zkCli.sh setAcl"
            );
        }
    }
}
