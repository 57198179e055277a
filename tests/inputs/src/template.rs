//! Templates of configurations.

use std::collections::BTreeMap;

use ochopod_template::{TemplateError, render, render_arguments};

use crate::assert_error;

/// Maximum length of a rendered template, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Checks that a template renders, deterministically, to a text within the limit; or it is rejected with a position in
/// it.
pub fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let variables = [("NAME", "web"), ("PORTS", "80:8080:9090"), ("EMPTY", ""), ("QUOTED", "say \"é\\n\"\n")];
    let variables: BTreeMap<_, _> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let rendered = render(&text, &variables);
    match &rendered {
        Ok(rendered) => assert!(rendered.len() <= MAX_BYTES, "a text of {} bytes", rendered.len()),
        Err(error) => assert_placed(error, &text),
    }
    if !text.contains("{{") {
        assert_eq!(rendered.as_deref(), Ok(&*text), "plain text is changed");
    }
    let words = ["-name".to_owned(), text.into_owned()];
    let (rendered_words, refused) = render_arguments(&words, &variables);
    match rendered {
        Ok(rendered) => assert_eq!((rendered_words.as_slice(), refused), (&["-name".to_owned(), rendered][..], None)),
        Err(error) => {
            assert_eq!(rendered_words, words, "some words are rendered and some are not");
            assert_eq!(refused.map(|refused| (refused.number, refused.error)), Some((2, error)));
        }
    }
}

/// Checks that the position is within the text, and comes first.
fn assert_placed(error: &TemplateError, text: &str) {
    assert_error(error);
    assert!(error.to_string().starts_with(&format!("{}: ", error.position)), "{error}");
    let line = text.split('\n').nth(error.position.line.wrapping_sub(1)).expect("the text has such a line");
    assert!((1..=line.chars().count() + 1).contains(&error.position.column), "{error}");
}
