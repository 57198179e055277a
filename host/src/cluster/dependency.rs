//! What a model depends on: a name, an absolute name, or a glob of either.

use std::fmt;

use glob::Pattern;

use super::ClusterName;

/// Longest dependency, in bytes. Matching a glob goes as deep into the stack as it has wildcards.
const LONGEST: usize = 512;
/// Longest dependency that an error repeats, in characters.
const SHOWN: usize = 80;

/// A dependency that is no name and no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// Nothing but white space or `/`.
    #[error("a dependency is empty")]
    Empty,
    /// A bad glob.
    #[error("dependency {text:?} is not a name and not a glob: {reason}")]
    Pattern {
        /// The dependency as declared, cut where it is very long.
        text: String,
        /// What is wrong with it.
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
    /// Reads `name` (in the namespace of `own`), `/absolute.name`, or a glob of either.
    ///
    /// # Errors
    /// When it is empty, a malformed glob, or longer than any name.
    pub fn new(declared: &str, own: &ClusterName) -> Result<Self, DependencyError> {
        let full = match declared.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None if declared.is_empty() => String::new(),
            None => format!("{}.{declared}", own.namespace()),
        };
        if full.is_empty() {
            return Err(DependencyError::Empty);
        }
        let refused = |reason| DependencyError::Pattern { text: declared.chars().take(SHOWN).collect(), reason };
        if declared.len() > LONGEST {
            return Err(refused(format!("it has more than {LONGEST} bytes")));
        }
        if full.contains('/') {
            return Err(refused("it contains '/'".to_owned()));
        }
        let pattern = if full.contains(['*', '?', '[']) {
            Some(Pattern::new(&full).map_err(|error| refused(error.to_string()))?)
        } else {
            None
        };
        Ok(Self { declared: declared.to_owned(), full, pattern })
    }

    /// As the model declared it: its name in views.
    #[must_use]
    pub fn declared(&self) -> &str {
        &self.declared
    }

    /// The one cluster it names, unless it is a glob.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        self.pattern.is_none().then_some(self.full.as_str())
    }

    /// Whether a cluster, by its whole name, belongs to it.
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
    fn names_are_relative_absolute_or_globs_that_cross_dots() {
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
    fn malformed_dependencies_are_refused_by_name() {
        let own = ClusterName::new("marathon", "web").unwrap();
        assert_eq!(Dependency::new("", &own), Err(DependencyError::Empty));
        assert_eq!(Dependency::new("/", &own), Err(DependencyError::Empty));
        for bad in ["a[", "a/b", "***"] {
            let error = Dependency::new(bad, &own).unwrap_err();
            assert!(matches!(&error, DependencyError::Pattern { text, .. } if text == bad), "{error}");
        }
        let long = Dependency::new(&"*?".repeat(100_000), &own).unwrap_err().to_string();
        assert!(long.ends_with("it has more than 512 bytes") && long.len() < 200, "{long}");
    }
}
