//! Signs that a command given as text was meant for a shell, which does not run it.

/// First words that a shell interprets itself.
const BUILTINS: [&str; 10] = ["!", ".", "cd", "exec", "export", "for", "if", "set", "source", "while"];

/// Returns the parts of a command's text that only a shell interprets, as they are written. Each is listed once, in the
/// order of the text. A builtin is not such a part if `is_program` finds a program of its name.
pub(super) fn shell_syntax(text: &str, is_program: impl Fn(&str) -> bool) -> Vec<String> {
    let text = text.trim();
    let mut found: Vec<String> = Vec::new();
    let mut note = |part: &str| {
        if !found.iter().any(|known| known == part) {
            found.push(part.to_owned());
        }
    };
    for (index, word) in text.split(' ').enumerate() {
        if index == 0 {
            if is_assignment(word) {
                note("NAME=value");
            }
            if BUILTINS.contains(&word) && !is_program(word) {
                note(word);
            }
        }
        note_parts(word, &mut note);
    }
    found
}

/// Returns whether a word sets a variable for the words after it.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(fits) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn note_parts(word: &str, note: &mut impl FnMut(&str)) {
    // The program `[` and its last argument.
    if matches!(word, "[" | "]") {
        return;
    }
    let is_url = is_url(word);
    for (at, part) in word.char_indices() {
        let (before, rest) = word.split_at(at);
        let after = rest.get(part.len_utf8()..).unwrap_or_default();
        let next = after.chars().next();
        match part {
            '\t' => note("a tab"),
            '\n' | '\r' => note("a line break"),
            '\'' | '"' | '`' | '|' | '<' | '>' => note(part.encode_utf8(&mut [0; 4])),
            '$' if next.is_some_and(|next| next.is_alphanumeric() || "_{('*@#?$!-\"".contains(next)) => note("$"),
            ';' | '&' if !(is_url && separates_parameters(part, before, after)) => {
                note(part.encode_utf8(&mut [0; 4]));
            }
            '*' | '?' | '[' if !is_url => note(part.encode_utf8(&mut [0; 4])),
            '{' if !is_url && !before.ends_with('$') && is_brace_list(after) => note("{…,…}"),
            '~' | '#' | '(' if at == 0 => note(part.encode_utf8(&mut [0; 4])),
            '\\' if next.is_none() => note("\\"),
            _ => {}
        }
    }
}

/// Returns whether `?`, `*`, brackets and braces in a word may be those of a URL, and `&` and `;` those of its query.
fn is_url(word: &str) -> bool {
    word.contains("://") || word.split_once('?').is_some_and(|(path, query)| path.contains('/') && query.contains('='))
}

/// Returns whether a `;` or `&` between these parts of a URL separates two parameters of its query. A parameter after `;` has a
/// value; otherwise it may be the next command.
fn separates_parameters(separator: char, before: &str, after: &str) -> bool {
    let parameter = after.split([';', '&']).next().unwrap_or_default();
    before.contains('?')
        && !before.ends_with('&')
        && !parameter.is_empty()
        && (separator == '&' || parameter.contains('='))
}

/// Returns whether the text after an opening brace is a list up to the closing one.
fn is_brace_list(after: &str) -> bool {
    after.split_once('}').is_some_and(|(list, _)| list.contains(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        shell_syntax(text, |_| false)
    }

    #[test]
    fn shell_syntax_is_listed_once_in_the_order_of_the_text() {
        for (text, expected) in [
            ("echo hi | grep hi", &["|"][..]),
            ("sh -c 'exit 1'", &["'"]),
            ("echo \"a b\"", &["\""]),
            ("test -e $FILE", &["$"]),
            ("echo ${A}$(date)`date`", &["$", "`"]),
            ("a; b", &[";"]),
            ("a && b &", &["&"]),
            ("a&b", &["&"]),
            ("a > b 2>&1 < c", &[">", "&", "<"]),
            ("rm *.log a?b [ab]c", &["*", "?", "["]),
            ("ls ~/x", &["~"]),
            ("(a)", &["("]),
            ("FOO=1 app", &["NAME=value"]),
            ("my\\ app", &["\\"]),
            ("a\tb\nc", &["a tab", "a line break"]),
            ("echo {a,b} x{1,2}", &["{…,…}"]),
            ("echo ${A,,}", &["$"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn shell_syntax_is_found_in_and_after_urls() {
        for (text, expected) in [
            ("curl http://h/$X?a=1&b=2", &["$"][..]),
            ("curl -f http://localhost/health; exit 0", &[";"]),
            ("wget -q http://h/x&&true", &["&"]),
            ("curl http://h/x?a=1&&true", &["&"]),
            ("curl http://h/ok& sleep 1", &["&"]),
            ("curl http://h/x?a=1&b=2& sleep 1", &["&"]),
            ("curl http://h/x?a=1; true", &[";"]),
            ("curl -sf http://h/a;curl -sf http://h/b", &[";"]),
            ("curl -sf http://h/a;curl -sf http://h/b?c=d", &[";"]),
            ("/a/b?c=d;rm", &[";"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn builtin_as_first_word_is_shell_syntax_unless_a_program_has_its_name() {
        for (text, word) in [
            ("! false", "!"),
            (". /etc/profile", "."),
            ("cd /x", "cd"),
            ("exec foo", "exec"),
            ("export A=1", "export"),
            ("for f in a b", "for"),
            ("if true then", "if"),
            ("set -e; foo", "set"),
            ("source /etc/profile", "source"),
            ("while true", "while"),
        ] {
            assert_eq!(found(text).first().map(String::as_str), Some(word), "{text}");
            assert!(!shell_syntax(text, |program| program == word).contains(&word.to_owned()), "{text}");
        }
    }

    #[test]
    fn plain_commands_have_no_shell_syntax() {
        for text in [
            "/usr/bin/check --port=80 -v",
            " reload  now ",
            "curl -f http://[::1]:80/health?a=1&b=2;c=*",
            "curl -f localhost:80/health?a=1&b=2",
            "curl http://h/v1/health/service/web?passing&dc=a",
            "curl http://{a,b}/health",
            "[ -e /run/app.pid ]",
            "grep ^ok$ /run/state",
            "app a~b a#b f(x) a\\.b {} {a} a,b",
            "app cd exec if .",
            "/opt/a=b/run",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
