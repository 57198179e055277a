//! Which version of the contract a component was made for.

use std::path::Path;

use wasmtime::component::Component;

use super::LoadError;

/// The version of `ochopod:pod` that this host supports.
pub(super) const SUPPORTED: &str = "0.1.0";
const PACKAGE: &str = "ochopod:pod/";
/// What a plugin has to export.
const EXPORTS: [&str; 3] = ["lifecycle", "model", "tools"];

/// Refuses a component of another world, or of another version of ours.
pub(super) fn check(path: &Path, component: &Component) -> Result<(), LoadError> {
    let engine = component.engine();
    let kind = component.component_type();
    let exports: Vec<&str> = kind.exports(engine).map(|(name, _)| name).collect();
    let imports: Vec<&str> = kind.imports(engine).map(|(name, _)| name).collect();
    examine(&exports, &imports).map_err(|flaw| match flaw {
        Flaw::Missing(missing) => LoadError::World { path: path.to_owned(), missing },
        Flaw::Version(found) => {
            LoadError::Version { path: path.to_owned(), found, supported: format!("ochopod:pod@{SUPPORTED}") }
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    Missing(String),
    Version(String),
}

fn examine(exports: &[&str], imports: &[&str]) -> Result<(), Flaw> {
    let mut versions = exports.iter().chain(imports).filter_map(|name| {
        let (_, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
        Some(version)
    });
    if let Some(other) = versions.find(|version| *version != SUPPORTED) {
        return Err(Flaw::Version(other.to_owned()));
    }
    let expected = EXPORTS.map(|interface| format!("{PACKAGE}{interface}@{SUPPORTED}"));
    let missing: Vec<String> = expected.into_iter().filter(|name| !exports.contains(&name.as_str())).collect();
    if missing.is_empty() { Ok(()) } else { Err(Flaw::Missing(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_apart_from_another_world() {
        let ours = ["ochopod:pod/lifecycle@0.1.0", "ochopod:pod/model@0.1.0", "ochopod:pod/tools@0.1.0"];
        assert_eq!(examine(&ours, &["ochopod:pod/log@0.1.0", "wasi:cli/stdout@0.2.6"]), Ok(()));
        let newer = ["ochopod:pod/lifecycle@0.2.0", "ochopod:pod/model@0.2.0", "ochopod:pod/tools@0.2.0"];
        assert_eq!(examine(&newer, &[]), Err(Flaw::Version("0.2.0".to_owned())));
        assert_eq!(examine(&ours, &["ochopod:pod/log@0.1.1"]), Err(Flaw::Version("0.1.1".to_owned())));
        assert_eq!(examine(&ours[..2], &[]), Err(Flaw::Missing("ochopod:pod/tools@0.1.0".to_owned())));
        let command = examine(&["wasi:cli/run@0.2.0"], &["wasi:cli/stdout@0.2.0"]);
        assert!(matches!(&command, Err(Flaw::Missing(all)) if all.matches("ochopod").count() == 3), "{command:?}");
    }
}
