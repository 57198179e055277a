//! Descriptor limit of this process, read from `/proc`.

use std::fs;

/// Returns the maximum number of open descriptors of this process; none if it is unlimited or unknown.
#[must_use]
pub fn max_descriptors() -> Option<usize> {
    parse(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn parse(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_is_parsed() {
        let limits =
            |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {soft}  4096  files\n");
        assert_eq!(parse(&limits("1024")), Some(1024));
        assert_eq!(parse(&limits("unlimited")), None);
        assert_eq!(parse(""), None);
        assert!(max_descriptors().is_some_and(|most| most > 3));
    }
}
