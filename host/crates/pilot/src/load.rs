//! Loads a configuration without blocking the host's thread, however long its files and its template take.

use std::{sync::Arc, time::Duration};

use ochopod_discovery::Registry;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{ConfigLoadError, ConfigLoader, config::Config};

/// Time limit for reading, rendering and opening, in total.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent loads, including abandoned ones: a thread that waits for a file cannot be stopped.
const MAX_LOADS: usize = 4;

static LOADS: Semaphore = Semaphore::const_new(MAX_LOADS);

/// A configuration, and what was opened for it. Opening nothing else, its application cannot fail.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// A client of its registry.
    pub registry: Arc<dyn Registry>,
}

impl ConfigLoader {
    /// Loads the configuration on another thread.
    ///
    /// # Errors
    /// Those of [`ConfigLoader::load`]; [`ConfigLoadError::Late`] after 10 seconds; [`ConfigLoadError::Busy`] while several loads hang.
    ///
    /// # Cancellation safety
    /// Dropping the future abandons the load.
    pub async fn load_in_background(&self) -> Result<Loaded, ConfigLoadError> {
        in_background(self, LOAD_TIMEOUT, |loader| {
            let (config, registry) = loader.open()?;
            Ok(Loaded { config, registry })
        })
        .await
    }

    /// Renders the text on another thread.
    ///
    /// # Errors
    /// Those of [`ConfigLoader::render`]; [`ConfigLoadError::Late`] after 10 seconds; [`ConfigLoadError::Busy`] while several loads hang.
    ///
    /// # Cancellation safety
    /// Dropping the future abandons the load.
    pub async fn render_in_background(&self) -> Result<String, ConfigLoadError> {
        in_background(self, LOAD_TIMEOUT, Self::render).await
    }
}

async fn in_background<T: Send + 'static>(
    loader: &ConfigLoader,
    limit: Duration,
    load: impl FnOnce(&ConfigLoader) -> Result<T, ConfigLoadError> + Send + 'static,
) -> Result<T, ConfigLoadError> {
    let permit = LOADS.try_acquire().map_err(|_| ConfigLoadError::Busy(MAX_LOADS))?;
    let own = loader.clone();
    let loading = spawn_blocking(move || {
        let _permit = permit;
        load(&own)
    });
    match timeout(limit, loading).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ConfigLoadError::Failed),
        Err(_) => Err(ConfigLoadError::Late(limit)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ochopod_environment::Env;

    use super::*;
    use crate::config::ConfigSource;

    #[tokio::test]
    async fn hanging_loads_are_abandoned_and_their_number_is_limited() {
        let limit = Duration::from_millis(20);
        let loader = ConfigLoader::new(ConfigSource::Text("{{ .X }}".to_owned()), &Env::default());
        let mut hanging = Vec::new();
        for _ in 0..MAX_LOADS {
            let (end, wait) = mpsc::channel::<()>();
            let given_up = in_background(&loader, limit, move |_| Ok(_ = wait.recv())).await;
            assert!(matches!(given_up, Err(ConfigLoadError::Late(_))), "{given_up:?}");
            hanging.push(end);
        }
        assert!(matches!(in_background(&loader, limit, |_| Ok(())).await, Err(ConfigLoadError::Busy(MAX_LOADS))));
        hanging.clear();
        let freed = LOADS.acquire_many(u32::try_from(MAX_LOADS).unwrap()).await.unwrap();
        drop(freed);
        assert_eq!(loader.render_in_background().await.unwrap(), "");
    }
}
