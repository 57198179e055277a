//! Small parsers, stricter than those of the standard library.

/// Parses a number of bytes, as plain decimal digits with an optional unit: `1048576`, `256MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Option<usize> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (digits, unit) =
        units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes))).unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// Parses `true` or `false`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_a_number_with_an_optional_unit() {
        for (text, expected) in
            [("0", 0), ("1048576", 1 << 20), ("256MiB", 256 << 20), ("2GiB", 2 << 30), ("4KiB", 4096)]
        {
            assert_eq!(size(text), Some(expected), "{text}");
        }
        for bad in ["", "MiB", "256MB", "256 MiB", "-1", "+1", "1.5GiB", "256mib", "99999999999GiB", "1KiBMiB", "0x1"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }
}
