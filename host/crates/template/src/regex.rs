//! Regular expressions in RE2's syntax, as in Go, executed by the `regex` crate.
//!
//! They differ in this: in RE2 `\d`, `\w`, `\s` and `\b` match ASCII only, a class contains no classes and no
//! operators, a `{` that starts no repetition is a brace, and `\Q…\E` quotes.

use std::{
    collections::BTreeMap,
    str::Chars,
    time::{Duration, Instant},
};

use ::regex::{Regex, RegexBuilder};

use super::error::excerpt;

/// Time limit of all searches of one template together.
const MAX_SEARCH_TIME: Duration = Duration::from_secs(2);
/// Largest compiled expression, in bytes.
const MAX_REGEX_BYTES: usize = 1024 * 1024;
/// Longest text that is searched, in bytes: the longest that a variable can be.
const MAX_TEXT_BYTES: usize = 128 * 1024;

/// Cause of a failed replacement.
#[derive(Debug, PartialEq)]
pub(super) enum RegexError {
    /// The expression is invalid.
    Bad(String),
    /// The text is too long to be searched.
    Text,
    /// The result would be too long.
    Length,
    /// The time limit has passed.
    Time,
}

/// Compiled expressions of one template.
#[derive(Debug, Default)]
pub(super) struct RegexCache {
    compiled: BTreeMap<String, Regex>,
    spent: Duration,
}

impl RegexCache {
    /// Replaces all matches in a text; `$1` and `${name}` are groups, `$$` is a dollar sign.
    pub(super) fn replace_all(
        &mut self,
        pattern: &str,
        to: &str,
        text: &str,
        max_bytes: usize,
    ) -> Result<String, RegexError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(RegexError::Text);
        }
        let start = Instant::now();
        let spent = self.spent;
        if spent > MAX_SEARCH_TIME {
            return Err(RegexError::Time);
        }
        if !self.compiled.contains_key(pattern) {
            self.compiled.insert(pattern.to_owned(), compile(pattern)?);
        }
        let groups = to.matches('$').count();
        let mut replaced = String::new();
        let mut end = 0;
        for captures in self.compiled.get(pattern).into_iter().flat_map(|regex| regex.captures_iter(text)) {
            if spent + start.elapsed() > MAX_SEARCH_TIME {
                return Err(RegexError::Time);
            }
            let Some(whole) = captures.get(0) else { continue };
            replaced.push_str(text.get(end..whole.start()).unwrap_or_default());
            end = whole.end();
            // No group is longer than the match.
            if replaced.len() + to.len() + groups * whole.len() > max_bytes {
                return Err(RegexError::Length);
            }
            captures.expand(to, &mut replaced);
        }
        replaced.push_str(text.get(end..).unwrap_or_default());
        self.spent += start.elapsed();
        if replaced.len() > max_bytes { Err(RegexError::Length) } else { Ok(replaced) }
    }
}

fn compile(pattern: &str) -> Result<Regex, RegexError> {
    let regex = RegexBuilder::new(&translated(pattern)).size_limit(MAX_REGEX_BYTES).build();
    regex.map_err(|error| {
        // The last line has the reason, the lines before the translated expression.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        RegexError::Bad(format!("invalid regular expression {:?}: {reason}", excerpt(pattern)))
    })
}

/// Translates an expression to the syntax of the `regex` crate.
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

/// Returns whether a brace with this after it starts a repetition.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (least, max) = inside.split_once(',').unwrap_or((inside, ""));
    !least.is_empty() && least.chars().chain(max.chars()).all(|char| char.is_ascii_digit())
}

/// Translates an escape outside of a class.
fn escape(chars: &mut Chars<'_>, out: &mut String) {
    match chars.next() {
        Some('b') => out.push_str(r"(?-u:\b)"),
        Some('B') => out.push_str(r"(?-u:\B)"),
        Some('Q') => {
            let rest = chars.as_str();
            let (quoted, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&::regex::escape(quoted));
            *chars = after.chars();
        }
        Some(letter) => _ = escaped(letter, chars, out),
        None => out.push('\\'),
    }
}

/// Translates an escaped character. Returns whether it stands for a single one.
fn escaped(letter: char, chars: &mut Chars<'_>, out: &mut String) -> bool {
    let not = if letter.is_ascii_uppercase() { "^" } else { "" };
    match letter {
        'd' | 'D' => out.extend(["[", not, "0-9]"]),
        'w' | 'W' => out.extend(["[", not, "0-9A-Za-z_]"]),
        's' | 'S' => out.extend(["[", not, r"\t\n\f\r ]"]),
        // They have another meaning in the crate.
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

/// Translates a class after its bracket.
fn class(chars: &mut Chars<'_>, out: &mut String) {
    out.push('[');
    if let Some(after) = chars.as_str().strip_prefix('^') {
        out.push('^');
        *chars = after.chars();
    }
    let mut first = true;
    // Whether a range may start with the member before.
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

/// Translates a member of a class after its first character. Returns whether it is a single character.
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

    fn replaced(pattern: &str, to: &str, text: &str) -> Result<String, RegexError> {
        RegexCache::default().replace_all(pattern, to, text, 1 << 20)
    }

    #[test]
    fn expressions_match_as_in_go() {
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
    fn invalid_expressions_are_rejected_with_a_reason() {
        for (pattern, reason) in [
            ("[a", "unclosed character class"),
            ("(a", "unclosed group"),
            ("*a", "repetition operator missing expression"),
            (r"a\", "incomplete escape sequence"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around"),
        ] {
            let Err(RegexError::Bad(error)) = replaced(pattern, "", "a") else { panic!("{pattern} is accepted") };
            assert!(error.starts_with(&format!("invalid regular expression {pattern:?}: ")), "{error}");
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn searches_are_bounded() {
        assert_eq!(replaced("a", "b", &"a".repeat(MAX_TEXT_BYTES + 1)), Err(RegexError::Text));
        assert_eq!(replaced("a", &"b".repeat(1000), &"a".repeat(2000)), Err(RegexError::Length));
        assert_eq!(replaced("a+", &"$0".repeat(1000), &"a".repeat(2000)), Err(RegexError::Length));
        let mut patterns = RegexCache { spent: MAX_SEARCH_TIME, ..RegexCache::default() };
        assert_eq!(patterns.replace_all("a", "b", "a", 10), Err(RegexError::Time));
        assert!(matches!(replaced(r"(\pL{100}){100}", "", "a"), Err(RegexError::Bad(_))));
    }
}
