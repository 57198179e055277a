//! JSON from peers and clients.

use serde::de::DeserializeOwned;

/// Maximum length of the text of an error.
const MAX_ERROR_BYTES: usize = 400;

/// Parses JSON.
///
/// # Errors
/// Cause and position of the first error, without repeating long input.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        if text.len() <= MAX_ERROR_BYTES {
            return text;
        }
        let cut = text.get(..text.floor_char_boundary(MAX_ERROR_BYTES)).unwrap_or_default();
        format!("{cut}… at line {} column {}", error.line(), error.column())
    })
}

/// Parses a JSON object. Unlike [`parse`], it rejects a list of the fields of a type in order.
///
/// # Errors
/// As those of [`parse`].
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        // Fails with the position, because a map is not read from a list.
        parse::<serde_json::Map<String, serde_json::Value>>(bytes)?;
    }
    parse(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_short_and_names_the_position() {
        assert_eq!(parse::<u8>(b"[1]").unwrap_err(), "invalid type: sequence, expected u8 at line 1 column 0");
        let long = format!("\n\"{}\"", "é".repeat(MAX_ERROR_BYTES));
        let error = parse::<u8>(long.as_bytes()).unwrap_err();
        assert!(
            error.starts_with("invalid type: string \"éé") && error.ends_with("é… at line 2 column 802"),
            "{error}"
        );
    }

    #[test]
    fn object_is_no_list_of_its_fields() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Named {
            name: String,
        }
        assert_eq!(parse_object(b" {\"name\": \"x\"}"), Ok(Named { name: "x".to_owned() }));
        let error = parse_object::<Named>(b" [\"x\"]").unwrap_err();
        assert_eq!(error, "invalid type: sequence, expected a map at line 1 column 1");
        assert!(parse_object::<Named>(b"").unwrap_err().contains("EOF"));
    }
}
