//! Dependencies of a model.

use ochopod_model::{ClusterName, Dependency, DependencyError};

use crate::assert_error;

/// Checks that a dependency matches its pattern, in bounded time and stack; invalid ones are rejected by name.
pub fn dependency(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let declared = lines.next().unwrap_or_default();
    let own = ClusterName::new("ns", "web").expect("it is a name");
    let dependency = match Dependency::new(declared, &own) {
        Ok(dependency) => dependency,
        Err(error) => {
            assert_error(&error);
            let named = matches!(&error, DependencyError::Pattern { text, .. } if declared.starts_with(&**text));
            return assert!(named || matches!(error, DependencyError::Empty), "{error}");
        }
    };
    assert_eq!((dependency.declared(), dependency.to_string().as_str()), (declared, declared));
    let full = declared.strip_prefix('/').map_or_else(|| format!("ns.{declared}"), str::to_owned);
    assert!(dependency.exact().is_none_or(|exact| exact == full && dependency.matches(exact)));
    for cluster in lines {
        let matches = dependency.matches(cluster);
        if !full.contains(['[', ']']) {
            assert_eq!(matches, fits(&full, cluster), "{declared:?} and {cluster:?}");
        }
    }
}

/// Returns whether a text matches a pattern of `*`, `?` and literal characters.
fn fits(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // At each position of the text: whether the pattern so far matches the text before it.
    let mut fitting = vec![false; text.len() + 1];
    fitting[0] = true;
    for wanted in pattern.chars() {
        let mut before = fitting[0];
        fitting[0] &= wanted == '*';
        for (place, found) in text.iter().enumerate() {
            let here = fitting[place + 1];
            fitting[place + 1] =
                if wanted == '*' { here || fitting[place] } else { before && (wanted == '?' || wanted == *found) };
            before = here;
        }
    }
    fitting[text.len()]
}
