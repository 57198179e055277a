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
    serde_json::from_str(include_str!("../../../tests/vectors/interfaces.json")).unwrap()
}

fn specs(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn specifications_are_those_of_containerpilot() {
    for case in vectors().parse {
        // The vectors refuse them as ContainerPilot does, whose names have no dots and dashes; here they are names.
        let dotted_or_dashed = ["eth0.100", "br-lan"].contains(&&*case.spec);
        let parsed = case.spec.parse::<Spec>();
        assert_eq!(parsed.is_ok(), case.ok || dotted_or_dashed, "{parsed:?}");
        let Some(kind) = case.kind else { continue };
        let name = case.name.unwrap_or_default();
        let family = if case.ipv6 == Some(true) { Family::Inet6 } else { Family::Inet };
        match (&*kind, parsed.unwrap()) {
            ("inet", spec) if name == "*" => assert_eq!(spec, Spec::Any(family)),
            ("inet", spec) => assert_eq!(spec, Spec::Named(name, family)),
            ("index", spec) => assert_eq!(spec, Spec::Indexed(name, case.index.unwrap())),
            ("cidr", Spec::Network(..)) | ("static", Spec::Static(_)) => {}
            (kind, spec) => panic!("{} is {spec:?}, and no {kind}", case.spec),
        }
    }
}

#[test]
fn specifications_lead_to_the_addresses_that_containerpilot_finds() {
    let vectors = vectors();
    let table: Table = vectors.table.into_iter().collect();
    let loopback: Table = vectors.resolve_loopback_only.table.into_iter().collect();
    let cases = vectors.resolve.iter().map(|case| (case, &table));
    let loopback_cases = vectors.resolve_loopback_only.cases.iter().map(|case| (case, &loopback));
    for (case, table) in cases.chain(loopback_cases) {
        assert_eq!(resolve(&case.specs, table).ok(), case.expect, "{:?}", case.specs);
    }
}

proptest! {
    #[test]
    fn tables_are_sorted_whatever_order_the_system_has(
        addresses in Just(vectors().sort.unsorted_any_permutation_of).prop_shuffle(),
    ) {
        // The vectors list IPv6 and IPv4 of lo in this order, and so does the key that they name.
        prop_assert_eq!(addresses.into_iter().collect::<Table>(), Table(vectors().sort.sorted));
    }

    #[test]
    fn any_text_is_a_specification_or_refused_by_its_name(text in "\\PC{0,100}") {
        if let Err(error) = text.parse::<Spec>() {
            prop_assert!(text.starts_with(&error.text));
        }
    }
}

#[test]
fn names_may_have_dots_dashes_and_at_signs_but_be_no_address() {
    for name in ["eth0.100", "br-lan", "veth1@if3", "_", "100", "wg0.1-x", "static"] {
        assert_eq!(name.parse(), Ok(Spec::Named(name.to_owned(), Family::Inet)));
        assert_eq!(format!("{name}[1]").parse(), Ok(Spec::Indexed(name.to_owned(), 1)));
    }
    assert_eq!("br-lan:inet6".parse(), Ok(Spec::Named("br-lan".to_owned(), Family::Inet6)));
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
        assert!(text.parse::<Spec>().is_err(), "{text} is taken");
    }
    for address in ["127.0.0.1", "::1"] {
        let told = address.parse::<Spec>().unwrap_err().to_string();
        assert_eq!(told, format!("{address:?} specifies no interface: expected static:{address}"));
    }
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let table: Table =
        [("eth0".to_owned(), mapped), ("eth0".to_owned(), "::1:2".parse().unwrap())].into_iter().collect();
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
fn all_bad_specifications_are_told_at_once() {
    let told = resolve(&specs(&["eth0", "!", "static:abc", "eth0:inet5"]), &Table(Vec::new())).unwrap_err();
    let InterfaceError::Specs(bad) = &told else { panic!("{told}") };
    assert_eq!(bad.iter().map(|error| &*error.text).collect::<Vec<_>>(), ["!", "static:abc", "eth0:inet5"]);
    assert!(told.to_string().contains("; \"static:abc\" specifies no interface: expected inet, inet6, static:IP"));
}

#[test]
fn an_error_tells_what_was_looked_for_and_what_is_there() {
    let table = vectors().resolve_loopback_only.table.into_iter().collect();
    assert_eq!(
        resolve(&specs(&["eth9", "inet6"]), &table).unwrap_err().to_string(),
        "none of eth9, inet6 leads to an address of this machine: it has lo ::1, lo 127.0.0.1"
    );
    assert_eq!(
        resolve(&[], &Table(Vec::new())).unwrap_err().to_string(),
        "none of eth0:inet leads to an address of this machine: it has none"
    );
}

#[test]
fn this_machine_has_a_loopback_interface() {
    let table = Table::read().unwrap();
    assert_eq!(resolve(&specs(&["none9", "lo", "inet"]), &table).unwrap().to_string(), "127.0.0.1");
    assert_eq!(resolve(&specs(&["127.0.0.0/8"]), &table).unwrap().to_string(), "127.0.0.1");
    assert!(resolve(&specs(&["inet"]), &table).map_or(true, |address| !address.is_loopback()));
}
