use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    parse: Vec<Parsed>,
    table: Vec<(String, IpAddr)>,
    resolve: Vec<Resolved>,
    resolve_loopback_only: Loopback,
    sort: Sort,
}

#[derive(Deserialize)]
struct Parsed {
    spec: String,
    ok: bool,
    kind: Option<String>,
    name: Option<String>,
    ipv6: Option<bool>,
    index: Option<usize>,
}

#[derive(Deserialize)]
struct Resolved {
    specs: Vec<String>,
    expect: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Loopback {
    table: Vec<(String, IpAddr)>,
    cases: Vec<Resolved>,
}

#[derive(Deserialize)]
struct Sort {
    unsorted_any_permutation_of: Vec<(String, IpAddr)>,
    sorted: Vec<(String, IpAddr)>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../tests/vectors/interfaces.json")).unwrap()
}

fn specs(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn specifications_parse_as_in_containerpilot() {
    for case in vectors().parse {
        // The vectors refuse them as ContainerPilot does, whose names have no dots and dashes; here they are names.
        let dotted_or_dashed = ["eth0.100", "br-lan"].contains(&&*case.spec);
        let parsed = case.spec.parse::<InterfaceSpec>();
        assert_eq!(parsed.is_ok(), case.ok || dotted_or_dashed, "{parsed:?}");
        let Some(kind) = case.kind else { continue };
        let name = case.name.unwrap_or_default();
        let family = if case.ipv6 == Some(true) { AddressFamily::Inet6 } else { AddressFamily::Inet };
        match (&*kind, parsed.unwrap()) {
            ("inet", spec) if name == "*" => assert_eq!(spec, InterfaceSpec::Any(family)),
            ("inet", spec) => assert_eq!(spec, InterfaceSpec::Named(name, family)),
            ("index", spec) => assert_eq!(spec, InterfaceSpec::Indexed(name, case.index.unwrap())),
            ("cidr", InterfaceSpec::Network(..)) | ("static", InterfaceSpec::Static(_)) => {}
            (kind, spec) => panic!("{} is {spec:?}, and no {kind}", case.spec),
        }
    }
}

#[test]
fn specifications_select_the_addresses_of_containerpilot() {
    let vectors = vectors();
    let table: InterfaceTable = vectors.table.into_iter().collect();
    let loopback: InterfaceTable = vectors.resolve_loopback_only.table.into_iter().collect();
    let cases = vectors.resolve.iter().map(|case| (case, &table));
    let loopback_cases = vectors.resolve_loopback_only.cases.iter().map(|case| (case, &loopback));
    for (case, table) in cases.chain(loopback_cases) {
        assert_eq!(resolve(&case.specs, table).ok(), case.expect, "{:?}", case.specs);
    }
}

proptest! {
    #[test]
    fn tables_are_sorted_for_any_order_of_the_system(
        addresses in Just(vectors().sort.unsorted_any_permutation_of).prop_shuffle(),
    ) {
        // The vectors list IPv6 and IPv4 of lo in this order, and so does the key that they name.
        prop_assert_eq!(addresses.into_iter().collect::<InterfaceTable>(), InterfaceTable(vectors().sort.sorted));
    }

    #[test]
    fn any_text_is_parsed_or_rejected_with_itself(text in "\\PC{0,100}") {
        if let Err(error) = text.parse::<InterfaceSpec>() {
            prop_assert!(text.starts_with(&error.text));
        }
    }
}

#[test]
fn names_with_dots_dashes_and_at_signs_are_accepted_unless_addresses() {
    for name in ["eth0.100", "br-lan", "veth1@if3", "_", "100", "wg0.1-x", "static"] {
        assert_eq!(name.parse(), Ok(InterfaceSpec::Named(name.to_owned(), AddressFamily::Inet)));
        assert_eq!(format!("{name}[1]").parse(), Ok(InterfaceSpec::Indexed(name.to_owned(), 1)));
    }
    assert_eq!("br-lan:inet6".parse(), Ok(InterfaceSpec::Named("br-lan".to_owned(), AddressFamily::Inet6)));
    for text in [
        "",
        "!",
        "eth0 ",
        "eth0:",
        ":inet",
        "eth0[]",
        "eth0[+1]",
        "eth0[99999999999999999999]",
        "[1]",
        "eth0[1]:inet6",
        "eth0:inet[1]",
        "10.0.0.1:inet",
        "10.0.0.1[0]",
        "static:",
        "static:inet",
        "static:10.0.0.0/8",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "::/129",
        "éth0",
        "fe80::1%eth0",
    ] {
        assert!(text.parse::<InterfaceSpec>().is_err(), "{text} is taken");
    }
    for address in ["127.0.0.1", "::1"] {
        let message = address.parse::<InterfaceSpec>().unwrap_err().to_string();
        assert_eq!(message, format!("invalid interface {address:?}: expected static:{address}"));
    }
}

#[test]
fn mapped_addresses_equal_ipv4_addresses() {
    let to_ipv6: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let table: InterfaceTable =
        [("eth0".to_owned(), to_ipv6), ("eth0".to_owned(), "::1:2".parse().unwrap())].into_iter().collect();
    for (spec, expected) in [
        ("inet", "10.0.0.1"),
        ("eth0[0]", "::1:2"),
        ("10.0.0.0/8", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.1"),
        ("0.0.0.0/0", "10.0.0.1"),
        ("::/0", "::1:2"),
        ("static:::ffff:1.2.3.4", "1.2.3.4"),
    ] {
        assert_eq!(resolve(&specs(&[spec]), &table).unwrap().to_string(), expected, "{spec}");
    }
}

#[test]
fn all_invalid_specifications_are_reported_together() {
    let message = resolve(&specs(&["eth0", "!", "static:abc", "eth0:inet5"]), &InterfaceTable(Vec::new())).unwrap_err();
    let InterfaceError::Specs(bad) = &message else { panic!("{message}") };
    assert_eq!(bad.iter().map(|error| &*error.text).collect::<Vec<_>>(), ["!", "static:abc", "eth0:inet5"]);
    assert!(message.to_string().contains("; invalid interface \"static:abc\": expected inet, inet6, static:IP"));
}

#[test]
fn error_lists_specifications_and_addresses() {
    let table = vectors().resolve_loopback_only.table.into_iter().collect();
    assert_eq!(
        resolve(&specs(&["eth9", "inet6"]), &table).unwrap_err().to_string(),
        "no interface matches eth9, inet6: this host has lo ::1, lo 127.0.0.1"
    );
    assert_eq!(
        resolve(&[], &InterfaceTable(Vec::new())).unwrap_err().to_string(),
        "no interface matches eth0:inet: this host has none"
    );
}

#[test]
fn ipv6_address_of_loopback_or_a_link_is_not_routable() {
    let table = |addresses: &[&str]| -> InterfaceTable {
        addresses.iter().map(|address| ("eth0".to_owned(), address.parse().unwrap())).collect()
    };
    for (addresses, expected) in [
        (&[][..], false),
        (&["10.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.2"], false),
        (&["10.0.0.1", "fd00::2"], true),
        (&["2001:db8::1"], true),
    ] {
        assert_eq!(table(addresses).has_routable_ipv6(), expected, "{addresses:?}");
    }
    assert!(table(&["::ffff:10.0.0.2"]).contains("10.0.0.2".parse().unwrap()));
}

#[test]
fn host_has_a_loopback_interface() {
    let table = InterfaceTable::read().unwrap();
    assert_eq!(resolve(&specs(&["none9", "lo", "inet"]), &table).unwrap().to_string(), "127.0.0.1");
    assert_eq!(resolve(&specs(&["127.0.0.0/8"]), &table).unwrap().to_string(), "127.0.0.1");
    assert!(resolve(&specs(&["inet"]), &table).map_or(true, |address| !address.is_loopback()));
}
