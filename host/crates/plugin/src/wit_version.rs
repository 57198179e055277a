//! Check of the contract version that a component was built for.

use std::path::Path;

use wasmtime::component::Component;

use super::LoadError;

/// Version of `ochopod:pod` that this host supports.
pub(super) const SUPPORTED: &str = "0.1.0";
const PACKAGE: &str = "ochopod:pod/";
/// Interfaces that a plugin must export.
const EXPORTS: [&str; 3] = ["lifecycle", "model", "tools"];

/// Rejects a component of another world or another version.
pub(super) fn check(path: &Path, component: &Component) -> Result<(), LoadError> {
    let engine = component.engine();
    let kind = component.component_type();
    let exports: Vec<&str> = kind.exports(engine).map(|(name, _)| name).collect();
    let imports: Vec<&str> = kind.imports(engine).map(|(name, _)| name).collect();
    check_interfaces(&exports, &imports).map_err(|flaw| match flaw {
        Incompatibility::Missing(missing) => LoadError::World { path: path.to_owned(), missing },
        Incompatibility::Version(found) => {
            LoadError::Version { path: path.to_owned(), found, supported: format!("ochopod:pod@{SUPPORTED}") }
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Incompatibility {
    Missing(String),
    Version(String),
}

fn check_interfaces(exports: &[&str], imports: &[&str]) -> Result<(), Incompatibility> {
    let mut versions = exports.iter().chain(imports).filter_map(|name| {
        let (_, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
        Some(version)
    });
    if let Some(other) = versions.find(|version| *version != SUPPORTED) {
        return Err(Incompatibility::Version(other.to_owned()));
    }
    let expected = EXPORTS.map(|interface| format!("{PACKAGE}{interface}@{SUPPORTED}"));
    let missing: Vec<String> = expected.into_iter().filter(|name| !exports.contains(&name.as_str())).collect();
    if missing.is_empty() { Ok(()) } else { Err(Incompatibility::Missing(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_version_and_other_world_are_distinct_errors() {
        let ours = ["ochopod:pod/lifecycle@0.1.0", "ochopod:pod/model@0.1.0", "ochopod:pod/tools@0.1.0"];
        assert_eq!(check_interfaces(&ours, &["ochopod:pod/log@0.1.0", "wasi:cli/stdout@0.2.6"]), Ok(()));
        let newer = ["ochopod:pod/lifecycle@0.2.0", "ochopod:pod/model@0.2.0", "ochopod:pod/tools@0.2.0"];
        assert_eq!(check_interfaces(&newer, &[]), Err(Incompatibility::Version("0.2.0".to_owned())));
        assert_eq!(
            check_interfaces(&ours, &["ochopod:pod/log@0.1.1"]),
            Err(Incompatibility::Version("0.1.1".to_owned()))
        );
        assert_eq!(
            check_interfaces(&ours[..2], &[]),
            Err(Incompatibility::Missing("ochopod:pod/tools@0.1.0".to_owned()))
        );
        let command = check_interfaces(&["wasi:cli/run@0.2.0"], &["wasi:cli/stdout@0.2.0"]);
        assert!(
            matches!(&command, Err(Incompatibility::Missing(all)) if all.matches("ochopod").count() == 3),
            "{command:?}"
        );
    }
}
