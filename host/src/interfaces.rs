//! tmp
use std::net::IpAddr;
/// t
pub struct Table;
/// e
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct InterfaceError;
impl Table {
    /// r
    pub fn read() -> Result<Self, InterfaceError> {
        Ok(Self)
    }
}
/// r
pub fn resolve(_: &[String], _: &Table) -> Result<IpAddr, InterfaceError> {
    Ok([127, 0, 0, 1].into())
}
