//! Dependencies of a model: a name, an absolute name, or a glob of either.

use std::fmt;

use glob::Pattern;

use super::ClusterName;

/// Maximum length of a dependency. Matching a glob recurses once per wildcard.
const MAX_BYTES: usize = 512;
/// Maximum length of a dependency in an error, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// An invalid dependency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// Nothing but white space or `/`.
    #[error("empty dependency")]
    Empty,
    /// A bad glob.
    #[error("invalid dependency {text:?}: expected a name or a glob: {reason}")]
    Pattern {
        /// The dependency as declared, cut if it is very long.
        text: String,
        /// Cause.
        reason: String,
    },
}

/// One declared dependency, matched against whole `namespace.cluster` names; `*` crosses dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    declared: String,
    full: String,
    pattern: Option<Pattern>,
}

impl Dependency {
    /// Parses `name` (in the namespace of `own`), `/absolute.name`, or a glob of either.
    ///
    /// # Errors
    /// If it is empty, a malformed glob, or too long.
    pub fn new(declared: &str, own: &ClusterName) -> Result<Self, DependencyError> {
        let full = match declared.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None if declared.is_empty() => String::new(),
            None => format!("{}.{declared}", own.namespace()),
        };
        if full.is_empty() {
            return Err(DependencyError::Empty);
        }
        let invalid =
            |reason| DependencyError::Pattern { text: declared.chars().take(MAX_SHOWN_CHARS).collect(), reason };
        if declared.len() > MAX_BYTES {
            return Err(invalid(format!("limit is {MAX_BYTES} bytes")));
        }
        if full.contains('/') {
            return Err(invalid("contains '/'".to_owned()));
        }
        let pattern = if full.contains(['*', '?', '[']) {
            Some(Pattern::new(&full).map_err(|error| invalid(error.to_string()))?)
        } else {
            None
        };
        Ok(Self { declared: declared.to_owned(), full, pattern })
    }

    /// Returns the dependency as the model declares it, which is its name in views.
    #[must_use]
    pub fn declared(&self) -> &str {
        &self.declared
    }

    /// Returns the one cluster it names, unless it is a glob.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        self.pattern.is_none().then_some(self.full.as_str())
    }

    /// Returns whether a cluster, by its whole name, belongs to it.
    #[must_use]
    pub fn matches(&self, cluster: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(cluster),
            None => self.full == cluster,
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_relative_absolute_or_a_glob_that_crosses_dots() {
        let own = ClusterName::new("app.staging", "web").unwrap();
        let matching = [
            ("db", "app.staging.db", true),
            ("db", "other.db", false),
            ("/other.db", "other.db", true),
            ("/other.db", "app.staging.other.db", false),
            ("db-*", "app.staging.db-1", true),
            ("*", "app.staging.sub.db", true),
            ("/*.db", "a.b.c.db", true),
            ("/*.db", "db", false),
        ];
        for (declared, cluster, expected) in matching {
            assert_eq!(Dependency::new(declared, &own).unwrap().matches(cluster), expected, "{declared} {cluster}");
        }
    }

    #[test]
    fn malformed_dependency_is_rejected_by_name() {
        let own = ClusterName::new("marathon", "web").unwrap();
        assert_eq!(Dependency::new("", &own), Err(DependencyError::Empty));
        assert_eq!(Dependency::new("/", &own), Err(DependencyError::Empty));
        for bad in ["a[", "a/b", "***"] {
            let error = Dependency::new(bad, &own).unwrap_err();
            assert!(matches!(&error, DependencyError::Pattern { text, .. } if text == bad), "{error}");
        }
        let long = Dependency::new(&"*?".repeat(100_000), &own).unwrap_err().to_string();
        assert!(long.ends_with("limit is 512 bytes") && long.len() < 200, "{long}");
    }
}
