//! Comparisons of Go's templates, between values of the same type only.

use super::value::Value;

const NOT_COMPARED: &str = "cannot be compared";

/// Returns whether the first value equals any of the others. Those after the first equal one are not compared.
pub(super) fn equals_any(values: &[Value<'_>]) -> Result<bool, String> {
    let Some((first, others @ [_, ..])) = values.split_first() else {
        return Err("expected something to compare it with".to_owned());
    };
    for other in others {
        if is_equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn is_equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool, String> {
    match (left, right) {
        (Value::Nil, _) | (_, Value::Nil) => Ok(left == right),
        (
            Value::List(_) | Value::Map(_) | Value::Items(_) | Value::Record(_),
            Value::List(_) | Value::Map(_) | Value::Items(_) | Value::Record(_),
        ) => Err(format!("{} {NOT_COMPARED}", left.kind())),
        _ => comparable(left, right).map(|()| match (left.whole(), right.whole()) {
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        }),
    }
}

pub(super) fn is_less(left: &Value<'_>, right: &Value<'_>) -> Result<bool, String> {
    comparable(left, right)?;
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => Ok(left < right),
        (Value::Text(left), Value::Text(right)) => Ok(left < right),
        _ => match (left.whole(), right.whole()) {
            (Some(left), Some(right)) => Ok(left < right),
            _ => Err(format!("{} has no order", left.kind())),
        },
    }
}

/// Checks that they are of the same type. A byte is a whole number.
fn comparable(left: &Value<'_>, right: &Value<'_>) -> Result<(), String> {
    if left.kind() == right.kind() || left.whole().is_some() && right.whole().is_some() {
        return Ok(());
    }
    Err(format!("{} and {} {NOT_COMPARED}", left.kind(), right.kind()))
}
