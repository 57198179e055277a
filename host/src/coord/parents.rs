//! The persistent nodes above registrations, lock nodes and instances of services.

use futures_util::future::join_all;
use tracing::warn;

use super::{Access, CoordError, Coordination, Mode, Op, layout::Layout};

/// Names of registrations and lock nodes; creates the nodes above them where they are missing.
pub(super) async fn open(
    session: &dyn Coordination,
    layout: &Layout,
) -> Result<(Vec<String>, Vec<String>), CoordError> {
    if let Some(names) = names(session, layout).await? {
        return Ok(names);
    }
    let denied = create(session, layout.parents()).await?;
    match (names(session, layout).await?, denied) {
        (Some(names), _) => Ok(names),
        (None, Some(denied)) => Err(denied),
        (None, None) => Err(CoordError::Unexpected(format!("somebody deletes what is in {}", layout.root()))),
    }
}

/// Creates persistent nodes, parents first, where they are missing. Gives the first denial, which means little: who may not
/// create is not told what is there all the same.
pub(crate) async fn create(
    session: &dyn Coordination,
    nodes: impl IntoIterator<Item = (String, Access)>,
) -> Result<Option<CoordError>, CoordError> {
    // The store carries out what a session asks in the order of asking: a parent is there when its child is created.
    let creations = nodes.into_iter().map(|(path, access)| {
        let create = Op::Create { path, data: Vec::new(), mode: Mode::Persistent, access };
        session.commit(vec![create])
    });
    let mut denied = None;
    for created in join_all(creations).await {
        match created {
            // It is there, perhaps by another pod that starts right now.
            Ok(_) | Err(CoordError::Conflict { .. }) => {}
            Err(error @ CoordError::Denied(_)) => denied = denied.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(denied)
}

/// None unless all of the nodes are there.
async fn names(session: &dyn Coordination, layout: &Layout) -> Result<Option<(Vec<String>, Vec<String>)>, CoordError> {
    let (pods, locks, hash) = (layout.pods(), layout.coordinator(), layout.hash());
    let read = tokio::try_join!(session.children(&pods), session.children(&locks), session.read(&hash))?;
    let (Some(pods), Some(locks), Some(_)) = read else { return Ok(None) };
    Ok(Some((pods, locks)))
}

/// Tells of nodes that were there before and let others do more, or less, than if this pod had created them.
pub(super) async fn tell_of_others_access(session: &dyn Coordination, layout: &Layout) {
    for (path, access) in layout.parents() {
        // It is but advice: who cannot be asked is not.
        if let Ok(Some(permissions)) = session.unlike(&path, access).await {
            warn!(
                "{path} was there before and keeps its access list, which is not what the settings say: \
                 everybody has the permissions {permissions}; setAcl of zkCli.sh changes that"
            );
        }
    }
}
