//! Token and certificates of a pod.

use std::{path::PathBuf, sync::Arc};

use ochopod_model::Token;
use rustls::{ClientConfig, ServerConfig};

use crate::identity::plain_client;

/// Token and certificates of a pod. All pods of a cluster have the same token, and either all or none use TLS.
#[derive(Clone)]
pub struct ControlSecurity {
    /// Token.
    pub token: Option<Token>,
    /// TLS configuration of the control server, if it uses TLS.
    pub server: Option<Arc<ServerConfig>>,
    /// TLS configuration of the leader's client.
    pub client: Arc<ClientConfig>,
    /// Whether clients need a certificate.
    pub mutual: bool,
    /// World-readable files with secrets.
    pub exposed: Vec<PathBuf>,
}

impl ControlSecurity {
    /// Creates one without token and certificates.
    ///
    /// # Errors
    /// If no TLS client can be configured.
    pub fn insecure() -> Result<Self, rustls::Error> {
        Ok(Self { token: None, server: None, client: plain_client()?, mutual: false, exposed: Vec::new() })
    }
}
