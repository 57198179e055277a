//! Specifications of interfaces.

use std::net::IpAddr;

use ochopod_interfaces::{InterfaceError, InterfaceSpec, InterfaceTable, resolve};

use crate::assert_error;

/// Lines are specifications. The first one with an address decides; the error names all invalid ones.
pub fn interfaces(bytes: &[u8]) {
    let specs: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    let addresses = [("eth0", "10.2.0.1"), ("eth0.100", "fd00::1"), ("br-lan", "192.168.1.1"), ("lo", "127.0.0.1")];
    let addresses = addresses.map(|(name, address)| (name.to_owned(), address.parse().expect("it is an address")));
    let table: InterfaceTable = addresses.iter().cloned().collect();
    let parsed: Vec<_> = specs.iter().map(|spec| spec.parse::<InterfaceSpec>()).collect();
    match resolve(&specs, &table) {
        Ok(address) => {
            let known: Vec<IpAddr> = addresses.iter().map(|(_, address)| *address).collect();
            let given = parsed.contains(&Ok(InterfaceSpec::Static(address)));
            assert!(given || known.contains(&address), "{specs:?} lead to {address}");
        }
        Err(InterfaceError::Specs(bad)) => {
            for error in &bad {
                assert_error(error);
            }
            assert_eq!(bad, parsed.into_iter().filter_map(Result::err).collect::<Vec<_>>());
        }
        Err(error) => {
            assert!(matches!(error, InterfaceError::NoMatch { .. }), "{error}");
            assert!(parsed.iter().all(Result::is_ok), "{error}");
        }
    }
}
