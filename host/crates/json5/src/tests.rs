use proptest::prelude::*;

use super::*;

/// Returns a tree as strict JSON, for comparison; numbers as Rust prints them.
fn plain(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members = members.iter().map(|member| format!("{:?}:{}", member.key, plain(&member.value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

fn refused(text: &str) -> (usize, usize, String) {
    let SyntaxError { at, problem } = parse(text).expect_err(text);
    (at.line, at.column, problem.to_string())
}

#[test]
fn additions_of_json5_to_json_are_parsed() {
    let cases = [
        ("null", "null"),
        (" [ true , false ] ", "[true,false]"),
        ("{}", "{}"),
        ("{a:1,'b':2,\"c\":3,}", r#"{"a":1,"b":2,"c":3}"#),
        ("[1,[2,],]", "[1,[2]]"),
        (
            "{$:1,_x1:2,naïve:3,a\\u0062c:4,Infinity:5,null:6}",
            r#"{"$":1,"_x1":2,"naïve":3,"abc":4,"Infinity":5,"null":6}"#,
        ),
        ("// first\n{a: /* in the middle, * and / */ 1} // last", r#"{"a":1}"#),
        ("/**/[/*/ , /*/]/***/", "[]"),
        ("\u{feff}\u{a0}\u{2003}\u{2028}\u{b}\u{c}1//", "1"),
        ("// ends here\u{2028}1", "1"),
        ("[+1,-1,.5,5.,0x1f,-0XA,1e3,Infinity,-Infinity,NaN]", "[1,-1,0.5,5,31,-10,1000,inf,-inf,NaN]"),
        ("['it\\'s \"x\"',\"it's\"]", r#"["it's \"x\"","it's"]"#),
        (r"'\b\f\n\r\t\v\0\\\/\a\'\x41\u00e9\ud83d\ude00'", r#""\u{8}\u{c}\n\r\t\u{b}\0\\/a'Aé😀""#),
        ("'a\\\nb\\\r\nc\\\rd\\\u{2028}e\\\u{2029}f'", r#""abcdef""#),
        ("'\t\u{2028}'", r#""\t\u{2028}""#),
    ];
    for (text, expected) in cases {
        match parse(text) {
            Ok(node) => assert_eq!(plain(&node), expected, "{text}"),
            Err(error) => panic!("{text}: {error:?}"),
        }
    }
}

#[test]
fn values_have_their_position_and_text() {
    let root = parse("{\n  a: 0x10,\r\n  'é': [ 'x', {b: -.5} ]\n}").unwrap();
    let Value::Object(members) = &root.value else { panic!("{root:?}") };
    let place = |at: Position| (at.line, at.column);
    let seen: Vec<_> = members.iter().map(|m| (&*m.key, place(m.at), place(m.value.at), m.value.written)).collect();
    assert_eq!(seen, [("a", (2, 3), (2, 6), "0x10"), ("é", (3, 3), (3, 8), "[ 'x', {b: -.5} ]")]);
    let Value::List(items) = &members[1].value.value else { panic!("{members:?}") };
    let items: Vec<_> = items.iter().map(|item| (place(item.at), item.written)).collect();
    assert_eq!(items, [((3, 10), "'x'"), ((3, 15), "{b: -.5}")]);
}

#[test]
fn invalid_text_is_rejected_at_its_first_wrong_character() {
    let comma = "unexpected comma: no value before it";
    let hole = |found: char| format!("expected a value, found {found:?}: is a template variable unset?");
    let escape = |text: &str| format!("invalid escape {text:?}");
    let cases = [
        ("", 1, 1, "expected a value, found the end of the text".to_owned()),
        ("<>", 1, 1, "expected a value, found '<'".to_owned()),
        ("[,]", 1, 2, comma.to_owned()),
        ("[1,,2]", 1, 4, comma.to_owned()),
        ("{a:1,,}", 1, 6, comma.to_owned()),
        ("{\n  ,}", 2, 3, comma.to_owned()),
        ("{\n    \"test\": ,\n    \"test2\": \"hello\"\n}", 2, 13, hole(',')),
        ("{a: }", 1, 5, hole('}')),
        ("{a 1}", 1, 4, "expected ':' after a key, found \"1\"".to_owned()),
        ("{1: 2}", 1, 2, "expected a key or '}', found \"1\"".to_owned()),
        ("{a:1 b:2}", 1, 6, "expected ',' or '}', found \"b\"".to_owned()),
        ("[1 2]", 1, 4, "expected ',' or ']', found \"2\"".to_owned()),
        ("[1}", 1, 3, "expected ',' or ']', found '}'".to_owned()),
        ("{} x", 1, 4, "expected the end of the text, found \"x\"".to_owned()),
        ("{}/", 1, 3, "expected the end of the text, found '/'".to_owned()),
        ("{\n a: [1,\n", 3, 1, "unterminated list, started at 2:5".to_owned()),
        ("{a:1", 1, 5, "unterminated object, started at 1:1".to_owned()),
        ("[1] /* no end", 1, 5, "unterminated comment, started at 1:5".to_owned()),
        ("'a\\", 1, 3, escape("\\")),
        ("['a", 1, 4, "unterminated text, started at 1:2".to_owned()),
        (
            "['a\n']",
            1,
            4,
            "unterminated text at the end of the line: expected its quote, or a backslash to continue it".to_owned(),
        ),
        ("'\\1'", 1, 2, escape("\\1")),
        ("'\\01'", 1, 2, escape("\\0")),
        ("'\\xg0'", 1, 2, escape("\\x")),
        ("'\\u12'", 1, 2, escape("\\u12")),
        ("'\\ud800'", 1, 2, escape("\\ud800")),
        ("'\\ud800\\u0041'", 1, 2, escape("\\ud800\\u0041")),
        ("'\\udc00'", 1, 2, escape("\\udc00")),
        ("{\\u0031a: 1}", 1, 2, escape("\\u0031")),
        ("010", 1, 1, "invalid number \"010\"".to_owned()),
        ("[- 1]", 1, 2, "invalid number \"-\"".to_owned()),
        ("3px", 1, 1, "invalid number \"3px\"".to_owned()),
        (
            "{level: debug}",
            1,
            9,
            "invalid value \"debug\": expected null, true, false, a number or a quoted string".to_owned(),
        ),
        ("\u{85}1", 1, 1, "expected a value, found '\\u{85}'".to_owned()),
    ];
    for (text, line, column, problem) in cases {
        assert_eq!(refused(text), (line, column, problem), "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(refused(&nested(MAX_DEPTH + 1)).1, MAX_DEPTH + 1);
    assert_eq!(refused(&"{a:[".repeat(1 << 20)).2, "nested too deep, limit is 64 levels");
}

#[test]
fn excerpt_shows_the_line_before_and_a_caret() {
    let at = |line, column| Position { line, column };
    let text = "{\n\ta: 1,\r\n\tb: ,\n}";
    assert_eq!(excerpt(text, at(3, 5)), "\n  2 | \ta: 1,\n  3 | \tb: ,\n    | \t   ^");
    assert_eq!(excerpt(text, at(1, 1)), "\n  1 | {\n    | ^");
    assert_eq!(excerpt("[\u{1b}", at(1, 3)), "\n  1 | [\u{fffd}\n    |   ^");
    let long = format!("{}é{}", "x".repeat(1000), "y".repeat(1000));
    let shown = excerpt(&long, at(1, 1001));
    let (line, caret) = shown.trim_start().split_once('\n').unwrap();
    assert_eq!(line.chars().nth(caret.chars().count() - 3), Some('é'), "{shown}");
    assert!(line.chars().count() < 130, "{shown}");
}

/// Generates text that is nearly JSON5.
fn nearly() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "a", "'", "\"", "\\", "\\u00e9", "\\ud83d", "\n", "\r\n", " ", "//", "/*", "*/",
        "1", "-", "0x", ".", "e", "Infinity", "NaN", "null", "true", "é", "\u{2028}", "\u{feff}", "\0",
    ]);
    prop_oneof![prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat()), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn errors_of_any_text_are_within_it_and_have_an_excerpt(text in nearly()) {
        if let Err(SyntaxError { at, problem }) = parse(&text) {
            let line = text.split('\n').nth(at.line - 1);
            prop_assert!(line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&at.column)), "{}: {}", at, problem);
            prop_assert!(excerpt(&text, at).ends_with('^'));
        }
    }

    #[test]
    fn json_parses_as_in_serde(text in "\\PC*", number in any::<i32>(), fraction in -1e6..1e6) {
        let json = serde_json::json!({ "text": text, "list": [number, fraction, true, null], "empty": {} });
        let numbers = format!("[{number},{fraction},true,null]");
        for printed in [json.to_string(), serde_json::to_string_pretty(&json).unwrap()] {
            let root = parse(&printed).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            let Value::Object(members) = &root.value else { return Err(TestCaseError::fail("no object")) };
            let member = |key: &str| members.iter().find(|member| member.key == key).map(|member| &member.value);
            let read = member("text").map(plain);
            prop_assert_eq!(read, Some(format!("{text:?}")));
            prop_assert_eq!(member("list").map(plain), Some(numbers.clone()));
        }
    }
}
