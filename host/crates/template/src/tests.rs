use std::ffi::OsString;

use ochopod_environment::Env;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    env: BTreeMap<String, String>,
    cases: Vec<Case>,
    environ: Vec<Environ>,
    args_2_1_4_up: Vec<Arguments>,
}

#[derive(Deserialize)]
struct Case {
    r#in: String,
    out: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Environ {
    r#in: Vec<String>,
    out: Option<BTreeMap<String, String>>,
    out_wanted: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Arguments {
    argv: Vec<String>,
    out: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../tests/vectors/templates.json")).unwrap()
}

pub(super) fn variables() -> BTreeMap<String, String> {
    let variables = [("NAME", "Template"), ("USER", "pilot"), ("PARTS", "a:b:c"), ("EMPTY", ""), ("QUOTED", "a\"b\\c")];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn error(text: &str) -> String {
    render(text, &variables()).unwrap_err().to_string()
}

#[test]
fn configurations_render_as_in_containerpilot() {
    let vectors = vectors();
    for case in &vectors.cases {
        let rendered = render(&case.r#in, &vectors.env);
        match (&case.out, case.error.as_deref()) {
            (Some(out), _) => assert_eq!(rendered.as_ref(), Ok(out), "{}", case.r#in),
            // Introduced by 3.7, and required here.
            (None, Some("function not defined")) => assert_eq!(rendered.as_deref(), Ok(""), "{}", case.r#in),
            (None, _) => assert!(rendered.is_err(), "{} renders as {rendered:?}", case.r#in),
        }
    }
}

#[test]
fn variable_is_the_text_after_the_first_equals_sign() {
    for environ in vectors().environ {
        let env: Env = environ.r#in.iter().filter_map(|entry| entry.split_once('=')).collect();
        let seen = environment(env.iter());
        assert_eq!(Some(&seen), environ.out_wanted.as_ref().or(environ.out.as_ref()));
        for (name, value) in &seen {
            assert_eq!(render(&format!("{{{{.{name}}}}}"), &seen).as_ref(), Ok(value));
        }
    }
}

#[test]
fn a_variable_that_is_no_utf_8_is_seen_with_replacements() {
    use std::os::unix::ffi::OsStringExt as _;
    let env: Env = [("BYTES", OsString::from_vec(b"a\xffb".to_vec()))].into_iter().collect();
    assert_eq!(render("{{.BYTES}}", &environment(env.iter())).as_deref(), Ok("a\u{fffd}b"));
}

#[test]
fn arguments_are_all_rendered_or_all_unchanged() {
    let variables = BTreeMap::from([("HOSTNAME".to_owned(), "box".to_owned())]);
    for arguments in vectors().args_2_1_4_up {
        let (words, error) = render_arguments(&arguments.argv, &variables);
        if arguments.out.contains("replaced") {
            assert_eq!((words, error), (vec!["-name".to_owned(), "box".to_owned()], None));
        } else {
            assert_eq!(words, arguments.argv);
            let message = error.unwrap().to_string();
            assert!(message.starts_with("argument 2: 1:14: unexpected }:"), "{message}");
        }
    }
}

#[test]
fn nesting_is_limited_before_the_stack_overflows() {
    let deep = |begin: &str, middle: &str, end: &str, levels| begin.repeat(levels) + middle + &end.repeat(levels);
    for levels in [MAX_DEPTH - 1, MAX_DEPTH + 1, 100_000] {
        for text in [
            deep("{{if 1}}", "a", "{{end}}", levels),
            deep("{{with $.NAME}}", "a", "{{end}}", levels),
            deep("{{range 1}}", "a", "{{end}}", levels),
            format!("{{{{{}}}}}", deep("(print ", "1", ")", levels)),
        ] {
            let rendered = render(&text, &variables());
            assert_eq!(rendered.is_ok(), levels < MAX_DEPTH, "{rendered:?}");
        }
    }
    let flat = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(10_000));
    assert_eq!(render(&flat, &variables()).as_deref(), Ok(""));
    let message = error("{{define \"a\"}}{{if 1}}{{template \"a\"}}{{end}}{{end}}{{template \"a\"}}");
    assert!(message.contains("nested too deep, limit is 100 levels"), "{message}");
}

#[test]
fn time_and_memory_are_limited() {
    for text in [
        "{{range 9223372036854775807}}{{end}}",
        "{{range 9223372036854775807}}a{{end}}",
        "{{range 9223372036854775807}}{{continue}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = print $x $x}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = html $x $x}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = replaceAll \"a\" $x $x}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = regexReplaceAll \"a\" $x $x}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = regexReplaceAll \"a+\" \"$0$0$0$0\" $x}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = join $x (split \"a\" $x)}}{{end}}",
        "{{$x := \"aa\"}}{{range 100}}{{$x = split \"\" (print $x $x) | join \"\"}}{{end}}",
        "{{$x := split \"\" .NAME}}{{range 9000000}}{{printf \"%9999s\" $x}}{{end}}",
        "{{define \"a\"}}{{template \"b\"}}{{template \"b\"}}{{end}}{{define \"b\"}}{{end}}{{range 9000000}}{{template \"a\"}}{{end}}",
    ] {
        let message = error(text);
        assert!(message.contains("too long"), "{message}");
    }
}

proptest! {
    #[test]
    fn any_text_renders_or_is_rejected_at_a_position_in_it(text in "\\PC{0,80}") {
        check(&text);
    }

    #[test]
    fn any_words_render_or_are_rejected(words in prop::collection::vec(prop::sample::select(WORDS), 0..30)) {
        check(&words.concat());
    }

    #[test]
    fn text_without_actions_is_unchanged(text in "[^{]{0,80}") {
        prop_assert_eq!(render(&text, &variables()), Ok(text));
    }

    #[test]
    fn values_are_inserted_unchanged_and_json_parses_back(value in "\\PC{0,40}") {
        let variables = BTreeMap::from([("X".to_owned(), value.clone())]);
        prop_assert_eq!(render("{{.X}}", &variables), Ok(value.clone()));
        let json = render("{{.X | json}}", &variables).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }
}

const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    "-}}",
    " ",
    "\n",
    "a",
    "é",
    ".NAME",
    ".",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "\"a\"",
    "`b`",
    "'c'",
    "1",
    "1.5",
    "-2",
    "true",
    "nil",
    "if ",
    "else",
    "end",
    "range ",
    "with ",
    "define \"d\"",
    "template \"d\"",
    "block \"e\" .",
    "break",
    "continue",
    "print ",
    "printf \"%5.2v\" ",
    "len ",
    "index ",
    "slice ",
    "eq ",
    "lt ",
    "and ",
    "or ",
    "not ",
    "split \":\" ",
    "join \",\" ",
    "{{end}}",
    "{{else}}",
    "{{if 1}}",
    "{{range 3}}",
    "/*",
    "*/",
];

fn check(text: &str) {
    if let Err(error) = render(text, &variables()) {
        let lines: Vec<_> = text.split('\n').collect();
        let line = lines.get(error.position.line - 1).expect("the line is one of the text");
        assert!(error.position.column <= line.chars().count() + 1, "{error}");
        assert!(error.to_string().starts_with(&format!("{}: ", error.position)), "{error}");
    }
}
