//! JSON that others wrote.

use serde::de::DeserializeOwned;

/// Longest text about what is wrong, in bytes.
const LONGEST: usize = 400;

/// Reads JSON; or says what is wrong, and where, without repeating all that others sent.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        if text.len() <= LONGEST {
            return text;
        }
        let cut = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default();
        format!("{cut}… at line {} column {}", error.line(), error.column())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_shortly_with_its_place() {
        assert_eq!(read::<u8>(b"[1]").unwrap_err(), "invalid type: sequence, expected u8 at line 1 column 0");
        let long = format!("\n\"{}\"", "é".repeat(LONGEST));
        let told = read::<u8>(long.as_bytes()).unwrap_err();
        assert!(told.starts_with("invalid type: string \"éé") && told.ends_with("é… at line 2 column 802"), "{told}");
    }
}
