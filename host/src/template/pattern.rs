//! Regular expressions as Go reads them, which is RE2's way, carried out by the `regex` crate.
//!
//! The two mean the same but for this: in RE2 `\d`, `\w`, `\s` and `\b` know ASCII only, a class has no classes and no
//! operators in it, a `{` that is no repetition is a brace, and `\Q…\E` quotes.

use std::{
    collections::BTreeMap,
    str::Chars,
    time::{Duration, Instant},
};

use regex::{Regex, RegexBuilder};

use super::error::shown;

/// How long all searches of one template may take together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest expression once it is compiled, in bytes.
const LARGEST: usize = 1024 * 1024;
/// Longest text that is searched, in bytes: as long as a variable can be.
const LONGEST: usize = 128 * 1024;

/// Why nothing was replaced.
#[derive(Debug, PartialEq)]
pub(super) enum PatternError {
    /// It is no regular expression.
    Bad(String),
    /// The text is too long to be searched.
    Text,
    /// The result would be too long.
    Length,
    /// There was no time left.
    Time,
}

/// The expressions of one template, each compiled once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    compiled: BTreeMap<String, Regex>,
    spent: Duration,
}

impl Patterns {
    /// The text with everything that matches replaced; `$1` and `${name}` are groups, `$$` is a dollar sign.
    pub(super) fn replace_all(
        &mut self,
        pattern: &str,
        to: &str,
        text: &str,
        most: usize,
    ) -> Result<String, PatternError> {
        if text.len() > LONGEST {
            return Err(PatternError::Text);
        }
        let start = Instant::now();
        let spent = self.spent;
        if spent > PATIENCE {
            return Err(PatternError::Time);
        }
        if !self.compiled.contains_key(pattern) {
            self.compiled.insert(pattern.to_owned(), compile(pattern)?);
        }
        let groups = to.matches('$').count();
        let mut replaced = String::new();
        let mut end = 0;
        for captures in self.compiled.get(pattern).into_iter().flat_map(|regex| regex.captures_iter(text)) {
            if spent + start.elapsed() > PATIENCE {
                return Err(PatternError::Time);
            }
            let Some(whole) = captures.get(0) else { continue };
            replaced.push_str(text.get(end..whole.start()).unwrap_or_default());
            end = whole.end();
            // A group is no longer than the whole.
            if replaced.len() + to.len() + groups * whole.len() > most {
                return Err(PatternError::Length);
            }
            captures.expand(to, &mut replaced);
        }
        replaced.push_str(text.get(end..).unwrap_or_default());
        self.spent += start.elapsed();
        if replaced.len() > most { Err(PatternError::Length) } else { Ok(replaced) }
    }
}

fn compile(pattern: &str) -> Result<Regex, PatternError> {
    let regex = RegexBuilder::new(&translated(pattern)).size_limit(LARGEST).build();
    regex.map_err(|error| {
        // The message shows the translated expression on the lines before its last.
        let told = error.to_string();
        let reason = told.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        PatternError::Bad(format!("{:?} is no regular expression: {reason}", shown(pattern)))
    })
}

/// The same expression as the `regex` crate reads it.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => escape(&mut chars, &mut out),
            '[' => class(&mut chars, &mut out),
            '{' if !is_repetition(chars.as_str()) => out.push_str("\\{"),
            _ => out.push(char),
        }
    }
    out
}

/// Whether a brace with this after it says how often something is repeated.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    !least.is_empty() && least.chars().chain(most.chars()).all(|char| char.is_ascii_digit())
}

/// What stands after a backslash outside of a class.
fn escape(chars: &mut Chars<'_>, out: &mut String) {
    match chars.next() {
        Some('b') => out.push_str(r"(?-u:\b)"),
        Some('B') => out.push_str(r"(?-u:\B)"),
        Some('Q') => {
            let rest = chars.as_str();
            let (quoted, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            *chars = after.chars();
        }
        Some(letter) => _ = escaped(letter, chars, out),
        None => out.push('\\'),
    }
}

/// An escaped letter or sign. Whether it stands for a single character.
fn escaped(letter: char, chars: &mut Chars<'_>, out: &mut String) -> bool {
    let not = if letter.is_ascii_uppercase() { "^" } else { "" };
    match letter {
        'd' | 'D' => out.extend(["[", not, "0-9]"]),
        'w' | 'W' => out.extend(["[", not, "0-9A-Za-z_]"]),
        's' | 'S' => out.extend(["[", not, r"\t\n\f\r ]"]),
        // The crate has a meaning of its own for them.
        '<' | '>' => out.push(letter),
        _ => out.extend(['\\', letter]),
    }
    if matches!(letter, 'p' | 'P' | 'x') {
        let rest = chars.as_str();
        let braced = rest.starts_with('{').then(|| rest.split_inclusive('}').next()).flatten();
        let operand = braced.or_else(|| rest.split_inclusive(|_| true).next().filter(|_| letter != 'x'));
        let operand = operand.unwrap_or_default();
        out.push_str(operand);
        *chars = rest.strip_prefix(operand).unwrap_or_default().chars();
    }
    !"dDwWsSpP".contains(letter)
}

/// A class, whose bracket is read.
fn class(chars: &mut Chars<'_>, out: &mut String) {
    out.push('[');
    if let Some(after) = chars.as_str().strip_prefix('^') {
        out.push('^');
        *chars = after.chars();
    }
    let mut first = true;
    // Whether a range may begin with what is before.
    let mut single = false;
    while let Some(char) = chars.next() {
        match char {
            ']' if !first => return out.push(char),
            '-' if single && !chars.as_str().starts_with(']') => {
                out.push(char);
                chars.next().map(|end| member(end, chars, out));
                single = false;
            }
            _ => single = member(char, chars, out),
        }
        first = false;
    }
}

/// A member of a class, whose first character is read. Whether it is a single character.
fn member(first: char, chars: &mut Chars<'_>, out: &mut String) -> bool {
    match first {
        '\\' => return chars.next().is_some_and(|letter| escaped(letter, chars, out)),
        '[' if chars.as_str().starts_with(':') => {
            let (named, after) = chars.as_str().split_once(":]").unwrap_or((chars.as_str(), ""));
            out.extend(["[", named, ":]"]);
            *chars = after.chars();
            return false;
        }
        '[' | ']' | '&' | '~' | '-' => out.extend(['\\', first]),
        _ => out.push(first),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, to: &str, text: &str) -> Result<String, PatternError> {
        Patterns::default().replace_all(pattern, to, text, 1 << 20)
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, to, text, expected) in [
            ("[epa]+", "_", "Template", "T_m_l_t_"),
            ("(a+)(b*)", "$2-${1}x-$1x-$$", "aab", "b-aax--$"),
            ("(?P<first>a)", "<$first>", "abc", "<a>bc"),
            ("x*", "-", "abc", "-a-b-c-"),
            (r"\d", "#", "1٣", "#٣"),
            (r"\w+", "#", "aé_1", "#é#"),
            (r"\W", "#", "aé", "a#"),
            (r"[^\w]", "#", "aé", "a#"),
            (r"[\W]", "#", "aé", "a#"),
            (r"\s", "#", " \t\n\u{b}\u{a0}", "###\u{b}\u{a0}"),
            (r"\b", "|", "aé", "|a|é"),
            (r"\<a\>", "#", "<a> a", "# a"),
            ("{.*}", "#", "a{b}c", "a#c"),
            ("a{2}", "#", "aaa", "#a"),
            ("a{,2}", "#", "a{,2}", "#"),
            (r"\Qa.b[\E.", "#", "a.b[c", "#"),
            (r"\Q.", "#", "a.", "a#"),
            ("[[a]", "#", "[a]", "##]"),
            ("[]a]", "#", "[a]", "[##"),
            ("[a&&b]", "#", "a&b", "###"),
            ("[+--]", "#", "+,-.", "###."),
            ("[a-]", "#", "a-b", "##b"),
            (r"[\d-x]", "#", "1-x", "###"),
            (r"[\pL-x]", "#", "é-M1", "###1"),
            ("[[:alpha:]-]", "#", "a-1", "##1"),
            (r"[\x41-\x{43}]", "#", "ABCD", "###D"),
            (r"\x{1F600}\pL\p{Greek}", "#", "😀aα", "#"),
            ("(?i)straße", "#", "STRAßE", "#"),
            ("(?m)^", "> ", "a\nb", "> a\n> b"),
            ("a$", "#", "a\na", "a\n#"),
            (".", "#", "é\n", "#\n"),
        ] {
            assert_eq!(replaced(pattern, to, text), Ok(expected.to_owned()), "{pattern}");
        }
    }

    #[test]
    fn bad_expressions_are_refused_with_a_reason() {
        for (pattern, reason) in [
            ("[a", "unclosed character class"),
            ("(a", "unclosed group"),
            ("*a", "repetition operator missing expression"),
            (r"a\", "incomplete escape sequence"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around"),
        ] {
            let Err(PatternError::Bad(error)) = replaced(pattern, "", "a") else { panic!("{pattern} is taken") };
            assert!(error.starts_with(&format!("{pattern:?} is no regular expression: ")), "{error}");
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn searches_are_bounded() {
        assert_eq!(replaced("a", "b", &"a".repeat(LONGEST + 1)), Err(PatternError::Text));
        assert_eq!(replaced("a", &"b".repeat(1000), &"a".repeat(2000)), Err(PatternError::Length));
        assert_eq!(replaced("a+", &"$0".repeat(1000), &"a".repeat(2000)), Err(PatternError::Length));
        let mut patterns = Patterns { spent: PATIENCE, ..Patterns::default() };
        assert_eq!(patterns.replace_all("a", "b", "a", 10), Err(PatternError::Time));
        assert!(matches!(replaced(r"(\pL{100}){100}", "", "a"), Err(PatternError::Bad(_))));
    }
}
