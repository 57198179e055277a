//! Addresses of ZooKeeper.

use ochopod_store::ZooKeeperAddress;

const SECRET: &str = "hunter2";

/// Checks that an address is parsed as it was printed, except for its credentials, which appear neither in the text nor
/// in an error.
pub fn address(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match text.parse::<ZooKeeperAddress>() {
        Ok(address) => {
            let shown = address.to_string();
            assert_eq!(format!("{address:?}"), shown);
            let again: ZooKeeperAddress = shown.parse().expect("what is shown is an address");
            assert_eq!((again.servers(), again.chroot()), (address.servers(), address.chroot()));
            assert_eq!(again.credentials(), None, "{shown} shows credentials");
            assert!(!address.servers().is_empty(), "{shown} has no server");
            assert!(address.servers().iter().all(|(host, port)| !host.is_empty() && *port != 0), "{shown}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if text.contains(SECRET) {
        return;
    }
    let forms = [
        format!("zk://user:{SECRET}@{text}"),
        format!("zk://user:{SECRET}{text}@host"),
        format!("{text}:{SECRET}@host"),
        format!("user:{SECRET}{text}@host"),
    ];
    for form in forms {
        let printed = match form.parse::<ZooKeeperAddress>() {
            Ok(address) => format!("{address} {address:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!printed.contains(SECRET), "{form:?} is printed as {printed:?}");
    }
}
