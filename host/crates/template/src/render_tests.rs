//! Results and errors of templates.

use super::{render, tests::variables};

/// Results of Go 1.27, except for the last two groups.
const RENDERED: &[(&str, &str)] = &[
    // Plain text, trimming and comments.
    ("", ""),
    ("a } }} { b", "a } }} { b"),
    ("{{\"a\"}} {{- \"b\" -}}\n\t c", "abc"),
    ("a {{- /* c */ -}} b {{/* }} */}}c", "ab c"),
    ("{{-3}}", "-3"),
    ("{{\n.NAME\n}}", "Template"),
    // Fields, variables and what is missing.
    ("{{.NAME}} {{ .NAME }} {{$.NAME}} {{(.).NAME}}|{{.NONE}}|", "Template Template Template Template||"),
    ("{{.}}", "map[EMPTY: NAME:Template PARTS:a:b:c QUOTED:a\"b\\c USER:pilot]"),
    ("{{$x := \"a\"}}{{if true}}{{$x = \"b\"}}{{$x := \"c\"}}{{$x}}{{end}}{{$x}}", "cb"),
    ("{{($y := 3)}}{{$y}}", "33"),
    ("{{$x := .}}{{$x.NAME}}", "Template"),
    ("{{or nil}} {{print nil}} {{html nil}}", "<no value> <nil> &lt;no value&gt;"),
    // Literals.
    (
        "{{true}} {{false}} {{1}} {{-1}} {{0x1F}} {{017}} {{0b11}} {{1_000}} {{'a'}} {{'\\n'}}",
        "true false 1 -1 31 15 3 1000 97 10",
    ),
    ("{{\"a\\tb\\u00e9\\x41\\\"\"}} {{`a\\t\"`}}", "a\tbéA\" a\\t\""),
    (
        "{{1.0}} {{100.50}} {{.5}} {{1e2}} {{1e6}} {{12345678.9}} {{1e21}} {{0.0001}} {{0.00001234}} {{-0.0}}",
        "1 100.5 0.5 100 1e+06 1.23456789e+07 1e+21 0.0001 1.234e-05 -0",
    ),
    // Pipelines.
    ("{{1 | print 2}} {{\"a\" | printf \"%s-%s\" \"b\"}} {{(1) | print}} {{.NAME | len | print}}", "2 1 b-a 1 8"),
    ("{{.NAME |}}", "Template"),
    // Truth and branches.
    (
        "{{if .NAME}}a{{end}}{{if .EMPTY}}b{{end}}{{if .NONE}}c{{end}}{{if 0}}d{{end}}{{if 0.0}}e{{end}}{{if .}}f{{end}}",
        "af",
    ),
    ("{{if (split \":\" \"\")}}a{{else}}b{{end}}", "b"),
    ("{{if and (eq .NAME \"Template\") (ne .USER \"x\")}}yes{{else if .X}}no{{else}}nope{{end}}", "yes"),
    ("{{if .A}}a{{else if .B}}b{{else if .USER}}c{{else}}d{{end}}", "c"),
    ("{{if $x := .NAME}}{{$x}}{{end}}{{if $x := .NONE}}{{else}}[{{$x}}]{{end}}", "Template[]"),
    ("{{with .NAME}}{{.}} {{$.USER}}{{end}}{{with .NONE}}a{{else}}{{.USER}}{{end}}", "Template pilotpilot"),
    ("{{with .A}}a{{else with .NAME}}{{.}}{{else}}c{{end}}{{with $x := .USER}}{{$x}}{{end}}", "Templatepilot"),
    // Loops.
    ("{{range $i, $e := split \":\" .PARTS}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b,c"),
    ("{{range split \":\" .PARTS}}[{{.}}]{{end}}{{range $e := split \":\" .PARTS}}{{$e}}{{end}}", "[a][b][c]abc"),
    ("{{range $k, $v := .}}{{$k}}={{$v}};{{end}}", "EMPTY=;NAME=Template;PARTS=a:b:c;QUOTED=a\"b\\c;USER=pilot;"),
    ("{{range 3}}{{.}}{{end}}{{range $i := 2}}{{$i}}{{end}}{{range 0}}a{{else}}none{{end}}", "01201none"),
    ("{{range split \":\" .NONE}}a{{else}}none{{end}}", "none"),
    ("{{range 5}}{{if eq . 3}}{{break}}{{end}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{end}}", "02"),
    ("{{$i := 1}}{{$x := 1}}{{range $i, $x = split \":\" .PARTS}}{{end}}{{$i}}{{$x}}", "2c"),
    ("{{range 2}}{{range 2}}{{break}}{{end}}{{.}}{{end}}", "01"),
    // Templates.
    (
        "{{define \"a\"}}<{{.}}{{$}}>{{end}}{{template \"a\" .NAME}}{{template \"a\"}}",
        "<TemplateTemplate><<no value><no value>>",
    ),
    ("{{block \"b\" .NAME}}<{{.}}>{{end}}{{template \"b\" 1}}", "<Template><1>"),
    // Logic and comparisons.
    (
        "{{and 1 0 2}} {{or 0 \"\" \"x\" 1}} {{and \"a\" \"b\"}} {{0 | or 1}} {{0 | and 1}} {{not 0}} {{not .NAME}}",
        "0 x b 1 0 true false",
    ),
    ("{{or .NAME (index . 1)}} {{and .NONE (index . 1)}}", "Template "),
    (
        "{{eq 1 2 1}} {{eq 1 1 \"a\"}} {{eq .NONE nil}} {{eq nil nil}} {{ne 1 2}} {{eq 'a' (index \"a\" 0)}}",
        "true true false true true true",
    ),
    ("{{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1.5 2.5}} {{lt \"B\" \"a\"}}", "true true true false true"),
    // Length and places.
    ("{{len .NAME}} {{len \"é\"}} {{len .}} {{len (split \":\" .PARTS)}}", "8 2 5 3"),
    (
        "{{index . \"NAME\"}} {{index (split \":\" .PARTS) 1}} {{index \"abc\" 1}} {{index . \"NAME\" 0}} {{index .NAME}}",
        "Template b 98 84 Template",
    ),
    ("{{slice \"abc\" 1 2}} {{slice \"abc\" 1}} {{slice \"abc\" 3}}| {{slice (split \":\" .PARTS) 1}}", "b bc | [b c]"),
    // Printing.
    (
        "{{print 1 2 \"a\" 3 4 nil nil}}|{{print \"a\" 1 2 true false \"b\"}}|{{println 1 \"a\"}}|{{print}}",
        "1 2a3 4 <nil> <nil>|a1 2 true falseb|1 a\n|",
    ),
    (
        "{{html \"<a href='x'>&\\\"\\x00\"}} {{urlquery \"a b&c=é~-._/\"}} {{html 1 2 \"a\"}}",
        "&lt;a href=&#39;x&#39;&gt;&amp;&#34;\u{fffd} a+b%26c%3D%C3%A9~-._%2F 1 2a",
    ),
    (
        "{{js \"it's <a&b=\\\"\\\\\\n\\u00e9\\u200b\\u0301\\U000e0001\"}}",
        "it\\'s \\u003Ca\\u0026b\\u003D\\\"\\\\\\u000Aé\\u200B\u{301}\\uE0001",
    ),
    // ContainerPilot's.
    (
        "{{default 5 0}} {{default \"x\" 7}} {{default (split \":\" .PARTS) \"\"}} {{default true .EMPTY}} {{default 1 .NAME}}",
        "5 x [a b c] true Template",
    ),
    (
        "{{.NONE | default 100}} {{.NONE | default 10.1}} {{.NONE | default 1e21}} {{.NONE | default nil}}",
        "100 10.1 1e+21 <nil>",
    ),
    (
        "{{split \":\" \" a:b \"}} {{split \":\" \"  \" | len}} {{split \"\" \"héy\" | join \",\"}} {{join \",\" nil}}",
        "[a b] 0 h,é,y ",
    ),
    ("{{replaceAll \"e\" \"_\" .NAME}} {{\"abc\" | replaceAll \"\" \"-\"}}", "T_mplat_ -a-b-c-"),
    ("{{\"aab\" | regexReplaceAll \"(a+)(b*)\" \"$2-$1x-${1}x-$$\"}}", "b--aax-$"),
    // Since 3.7.
    ("{{env \"NAME\"}} {{env `USER`}} {{\"NAME\" | env}} {{env \"NONE\"}}|", "Template pilot Template |"),
    // An addition.
    (
        "{{.QUOTED | json}} {{json 1}} {{json nil}} {{split \":\" .PARTS | json}} {{json 1.5}}",
        "\"a\\\"b\\\\c\" 1 null [\"a\",\"b\",\"c\"] 1.5",
    ),
];

#[test]
fn templates_render_as_in_go() {
    for (text, expected) in RENDERED {
        assert_eq!(render(text, &variables()).as_deref(), Ok(*expected), "{text}");
    }
}

#[test]
fn printf_formats_as_in_go() {
    for (arguments, expected) in [
        (r#""%5s|%-5s|%05d|%+d|% d" "a" "b" 42 42 5"#, "    a|b    |00042|+42| 5"),
        (
            r#""%x|%X|%#x|%o|%O|%#o|%b|%#b|%c|%U|%q" 255 255 255 8 8 8 5 5 65 65 'x'"#,
            "ff|FF|0xff|10|0o10|010|101|0b101|A|U+0041|'x'",
        ),
        (
            r#""%6.2f|%-8.3e|%g|%G|%08.2f|%+.1f|%.3g|%F" 3.14159 1234.5 1e-7 1e21 -3.14159 2.0 1234.5 1.5"#,
            "  3.14|1.234e+03|1e-07|1E+21|-0003.14|+2.0|1.23e+03|1.500000",
        ),
        (r#""%v %v %v %v %v" 1 1.5 true "s" nil"#, "1 1.5 true s <nil>"),
        (r#""%t %T %T %T %T %T" true true 1 1.0 "" nil"#, "true bool int float64 string <nil>"),
        (r#""%s %q" (split ":" .PARTS) (split ":" .PARTS)"#, r#"[a b c] ["a" "b" "c"]"#),
        (r#""%x|% x|%#x|%# X|%.1x" "hi" "hi" "hi" "hi" "hi""#, "6869|68 69|0x6869|0X68 0X69|68"),
        (r#""%q|%#q|%+q" "a\"b\n" "a\"b" "é""#, r#""a\"b\n"|`a"b`|"\u00e9""#),
        (r#""%5t|%05s|%-05d|%5v|%.2s|%.0d|%5.3d" true "a" 3 nil "éàü" 0 7"#, " true|0000a|3    |<nil>|éà||  007"),
        (r#""%#v %#v %#v %#v" "a" 1 (split ":" "a:b") (index "a" 0)"#, r#""a" 1 []string{"a", "b"} 0x61"#),
        (r#""%*d|%-*d|%.*f" 5 1 5 1 2 3.14159"#, "    1|1    |3.14"),
        (r#""100%% %d%%" 5"#, "100% 5%"),
        (
            r#""%s %d %t %c %f %z" nil "a" 1 "x" 1 1"#,
            "%!s(<nil>) %!d(string=a) %!t(int=1) %!c(string=x) %!f(int=1) %!z(int=1)",
        ),
        (r#""%d %s" 1"#, "1 %!s(MISSING)"),
        (r#""a" 1 nil "b""#, "a%!(EXTRA int=1, <nil>, string=b)"),
        (r#""%""#, "%!(NOVERB)"),
        (r#""%*d" "a" 1"#, "%!(BADWIDTH)1"),
    ] {
        assert_eq!(
            render(&format!("{{{{printf {arguments}}}}}"), &variables()).as_deref(),
            Ok(expected),
            "{arguments}"
        );
    }
}

#[test]
fn syntax_errors_have_position_and_expectation() {
    for (text, expected) in [
        ("{\"consul\":\"{{ .X\"}", "1:17: unexpected \": expected a blank, |, ) or }} after .X, in {{ .X\"}"),
        ("a\n {{x .NAME}}", "2:4: function \"x\" not defined, in {{x .NAME}}"),
        ("{{.X}", "1:5: unexpected }: expected a blank, |, ) or }} after .X, in {{.X}"),
        ("é{{.X ", "1:2: unclosed action: expected }}, in {{.X "),
        ("{{\"a}}", "1:3: unclosed string: expected \" before the end of the line, in {{\"a}}"),
        ("{{`a}}", "1:3: unclosed string: expected `, in {{`a}}"),
        ("{{'a}}", "1:3: unclosed character: expected ' before the end of the line, in {{'a}}"),
        ("{{/* a}}", "1:1: unclosed comment: expected */, in {{/* a}}"),
        ("{{/* a */ }}", "1:1: unclosed comment: expected }} right after */, in {{/* a */ }}"),
        ("{{(.X}}", "1:3: unclosed parenthesis: expected ), in {{(.X}}"),
        ("{{.X)}}", "1:5: unexpected ): expected a parenthesis before it, in {{.X)}}"),
        ("{{€}}", "1:3: unexpected €: expected a value or a function, in {{€}}"),
        ("{{}}", "1:3: unexpected }}: expected a value or a function, in {{}}"),
        ("{{.X \"a\"b}}", "1:9: unexpected b: expected a blank and a value, | or the end, in {{.X \"a\"b}}"),
        ("{{1 | \"b\"}}", "1:7: unexpected \"b\": expected a function after |, in {{1 | \"b\"}}"),
        ("{{nil.X}}", "1:6: unexpected .X: expected a blank before it, in {{nil.X}}"),
        ("{{08}}", "1:3: invalid number 08, in {{08}}"),
        ("{{\"\\q\"}}", "1:3: invalid string \"\\q\", in {{\"\\q\"}}"),
        ("{{'ab'}}", "1:3: invalid character 'ab', in {{'ab'}}"),
        ("{{$x}}", "1:3: variable \"$x\" not defined, in {{$x}}"),
        ("{{$x = 1}}", "1:3: variable \"$x\" not defined, in {{$x = 1}}"),
        ("{{if 1}}{{$x := 1}}{{end}}{{$x}}", "1:29: variable \"$x\" not defined, in {{$x}}"),
        ("{{and false ($x := 1)}}{{$x}}", "1:26: variable \"$x\" not defined, in {{$x}}"),
        ("{{range $i, $e}}{{end}}", "1:15: unexpected }}: expected := after the variables, in {{range $i, $e}}"),
        ("{{$x, $y := 1}}", "1:5: unexpected ,: expected := after the variable, in {{$x, $y := 1}}"),
        ("{{if}}{{end}}", "1:5: unexpected }}: expected a value or a function, in {{if}}"),
        ("\n {{if .X}}\n{{range .}}{{end}}", "3:19: missing {{end}} of the block started at 2:2, in {{if .X}}"),
        ("{{end}}", "1:3: unexpected end: expected a block that it could belong to, in {{end}}"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "1:23: unexpected second else: expected {{end}}, in {{else}}"),
        ("{{break}}", "1:3: unexpected break: expected it between {{range}} and its {{end}}, in {{break}}"),
        (
            "{{if 1}}{{define \"a\"}}{{end}}{{end}}",
            "1:11: unexpected define: expected it outside of any block, in {{define \"a\"}}",
        ),
        ("{{define a}}{{end}}", "1:10: unexpected a: expected the name of a template, in quotes, in {{define a}}"),
        ("{{define \"a\"}}b{{end}}{{define \"a\"}}c{{end}}", "1:23: duplicate template \"a\", in {{define \"a\"}}"),
    ] {
        assert_eq!(render(text, &variables()).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn evaluation_errors_have_position_and_expectation() {
    for (text, expected) in [
        ("{{template \"a\"}}", "1:1: template \"a\" not defined, in {{template \"a\"}}"),
        ("{{.X 1}}", "1:3: unexpected argument: expected a function to give it to, in {{.X 1}}"),
        ("{{nil}}", "1:3: unexpected nil: expected a value, in {{nil}}"),
        ("{{split \":\"}}", "1:3: wrong number of arguments for split: expected 2, got 1, in {{split \":\"}}"),
        ("{{printf}}", "1:3: wrong number of arguments for printf: expected at least 1, got 0, in {{printf}}"),
        (
            "{{split \":\" 5}}",
            "1:13: wrong type for argument 2 of split: expected string, got int, in {{split \":\" 5}}",
        ),
        (
            "{{.X | join \",\"}}",
            "1:8: wrong type for argument 2 of join: expected []string, got string, in {{.X | join \",\"}}",
        ),
        (
            "{{.NAME.X}}",
            "1:3: wrong type for the value before .X: expected map[string]string, got string, in {{.NAME.X}}",
        ),
        (
            "{{range \"a\"}}{{end}}",
            "1:9: wrong type for range: expected a list, a map or a number, got string, in {{range \"a\"}}",
        ),
        (
            "{{range $i, $e := 3}}{{end}}",
            "1:9: wrong type for range: expected a list or a map for two variables, got int, in {{range $i, $e := 3}}",
        ),
        ("{{eq 1 1.0}}", "1:3: error calling eq: int and float64 cannot be compared, in {{eq 1 1.0}}"),
        ("{{eq 1}}", "1:3: error calling eq: expected something to compare it with, in {{eq 1}}"),
        ("{{eq . .}}", "1:3: error calling eq: map[string]string cannot be compared, in {{eq . .}}"),
        ("{{lt true false}}", "1:3: error calling lt: bool has no order, in {{lt true false}}"),
        ("{{len 3}}", "1:3: error calling len: int has no length, in {{len 3}}"),
        ("{{index \"abc\" 3}}", "1:3: error calling index: index out of range: 3, in {{index \"abc\" 3}}"),
        ("{{index . 1}}", "1:3: error calling index: expected a string as the index, got int, in {{index . 1}}"),
        ("{{slice \"abc\" 2 1}}", "1:3: error calling slice: the indexes are not in order, in {{slice \"abc\" 2 1}}"),
        (
            "{{regexReplaceAll \"[\" \"\" .X}}",
            "1:3: error calling regexReplaceAll: invalid regular expression \"[\": unclosed character class, \
             in {{regexReplaceAll \"[\" \"\" .X}}",
        ),
    ] {
        assert_eq!(render(text, &variables()).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn parts_not_evaluated_cannot_fail() {
    for text in ["{{if false}}{{len 3}}{{end}}", "{{define \"a\"}}{{template \"b\"}}{{end}}", "{{or 1 (index . 1)}}"] {
        assert!(render(text, &variables()).is_ok(), "{text}");
    }
}
