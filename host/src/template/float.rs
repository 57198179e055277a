//! Floats as Go writes them.

/// The size of a float, without its sign, as a verb of `printf` says.
pub(super) fn unsigned(float: f64, verb: char, precision: Option<usize>) -> String {
    let size = float.abs();
    let written = match verb.to_ascii_lowercase() {
        'e' => scientific(&format!("{size:.*e}", precision.unwrap_or(6))),
        'f' => format!("{size:.*}", precision.unwrap_or(6)),
        _ => general(size, precision.map(|precision| precision.max(1))),
    };
    if verb.is_ascii_uppercase() { written.to_ascii_uppercase() } else { written }
}

/// With as few digits as tell it from any other, or so many at most; with an exponent where it would be long without one.
fn general(size: f64, most: Option<usize>) -> String {
    let written = most.map_or_else(|| format!("{size:e}"), |most| format!("{size:.*e}", most.saturating_sub(1)));
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches(['0']).trim_end_matches('.') } else { mantissa };
    let digits = mantissa.replace('.', "");
    // How many digits stand before the point.
    let whole = exponent.parse::<isize>().unwrap_or_default() + 1;
    let count = digits.len().try_into().unwrap_or(isize::MAX);
    let longest = match most.map(|most| most.try_into().unwrap_or(isize::MAX)) {
        None => 6,
        Some(most) if most > count && count >= whole => count,
        Some(most) => most,
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

/// An exponent has a sign and two digits at least.
fn scientific(written: &str) -> String {
    let (mantissa, exponent) = written.split_once('e').unwrap_or((written, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{mantissa}e{sign}{exponent:0>2}")
}
