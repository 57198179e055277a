//! Templates of configurations.

use std::collections::BTreeMap;

use ochopod::template::{TemplateError, render, render_words};

use crate::assert_told;

/// Longest text that comes of a template, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// A template renders, always the same, to a text that is not too long; or it is refused with a place in it.
pub fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let variables = [("NAME", "web"), ("PORTS", "80:8080:9090"), ("EMPTY", ""), ("QUOTED", "say \"é\\n\"\n")];
    let variables: BTreeMap<_, _> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let rendered = render(&text, &variables);
    match &rendered {
        Ok(rendered) => assert!(rendered.len() <= LONGEST, "a text of {} bytes", rendered.len()),
        Err(error) => assert_placed(error, &text),
    }
    if !text.contains("{{") {
        assert_eq!(rendered.as_deref(), Ok(&*text), "plain text is changed");
    }
    let words = ["-name".to_owned(), text.into_owned()];
    let (rendered_words, refused) = render_words(&words, &variables);
    match rendered {
        Ok(rendered) => assert_eq!((rendered_words.as_slice(), refused), (&["-name".to_owned(), rendered][..], None)),
        Err(error) => {
            assert_eq!(rendered_words, words, "some words are rendered and some are not");
            assert_eq!(refused.map(|refused| (refused.number, refused.error)), Some((2, error)));
        }
    }
}

/// The place is one of the text, and comes first.
fn assert_placed(error: &TemplateError, text: &str) {
    assert_told(error);
    assert!(error.to_string().starts_with(&format!("{}: ", error.position)), "{error}");
    let line = text.split('\n').nth(error.position.line.wrapping_sub(1)).expect("the text has such a line");
    assert!((1..=line.chars().count() + 1).contains(&error.position.column), "{error}");
}
