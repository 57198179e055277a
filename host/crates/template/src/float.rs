//! Floats as Go prints them.

/// Prints a float without its sign, by a verb of `printf`.
pub(super) fn unsigned(float: f64, verb: char, precision: Option<usize>) -> String {
    let size = float.abs();
    let written = match verb.to_ascii_lowercase() {
        'e' => scientific(&format!("{size:.*e}", precision.unwrap_or(6))),
        'f' => format!("{size:.*}", precision.unwrap_or(6)),
        _ => general(size, precision.map(|precision| precision.max(1))),
    };
    if verb.is_ascii_uppercase() { written.to_ascii_uppercase() } else { written }
}

/// Prints the fewest digits that identify it, or at most so many; with an exponent if it would be long without one.
fn general(size: f64, max: Option<usize>) -> String {
    let written = max.map_or_else(|| format!("{size:e}"), |max| format!("{size:.*e}", max.saturating_sub(1)));
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches(['0']).trim_end_matches('.') } else { mantissa };
    let digits = mantissa.replace('.', "");
    // Digits before the point.
    let whole = exponent.parse::<isize>().unwrap_or_default() + 1;
    let count = digits.len().try_into().unwrap_or(isize::MAX);
    let longest = match max.map(|max| max.try_into().unwrap_or(isize::MAX)) {
        None => 6,
        Some(max) if max > count && count >= whole => count,
        Some(max) => max,
    };
    if whole < -3 || whole > longest {
        return scientific(&format!("{mantissa}e{exponent}"));
    }
    match usize::try_from(whole) {
        Ok(whole) if whole > 0 => match digits.split_at_checked(whole) {
            Some((before, "")) => before.to_owned(),
            Some((before, after)) => format!("{before}.{after}"),
            None => format!("{digits:0<whole$}"),
        },
        _ => format!("0.{}{digits}", "0".repeat(whole.unsigned_abs())),
    }
}

/// Prints an exponent with a sign and at least two digits.
fn scientific(written: &str) -> String {
    let (mantissa, exponent) = written.split_once('e').unwrap_or((written, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{mantissa}e{sign}{exponent:0>2}")
}
