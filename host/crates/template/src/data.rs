//! Data of templates other than variables: records, lists of records, texts and numbers.

use std::collections::BTreeMap;

use serde::Serialize;

/// Data of a template. A record is like a struct in Go: an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Data {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A list of texts, as `join` requires.
    Texts(Vec<String>),
    /// A list of anything, most often of records.
    List(Vec<Data>),
    /// Values by field name.
    Record(BTreeMap<&'static str, Data>),
}

impl Data {
    /// Creates a record.
    pub fn record(fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Record(fields.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{render_data, validate};

    fn data() -> Data {
        let instance = |address: &str, port| {
            Data::record([("Address", Data::Text(address.to_owned())), ("Port", Data::Number(port))])
        };
        Data::record([
            ("Backend", Data::Text("db".to_owned())),
            ("Addresses", Data::Texts(vec!["10.0.0.1:80".to_owned(), "10.0.0.2:81".to_owned()])),
            ("Instances", Data::List(vec![instance("10.0.0.1", 80), instance("10.0.0.2", 81)])),
            ("None", Data::List(Vec::new())),
        ])
    }

    fn rendered(text: &str) -> Result<String, String> {
        let variables = [("HOME".to_owned(), "/root".to_owned())].into();
        render_data(text, &data(), &variables).map_err(|error| error.to_string())
    }

    #[test]
    fn records_and_lists_of_records_are_rendered_as_structs_of_go_are() {
        for (text, expected) in [
            ("{{range .Instances}}server {{.Address}}:{{.Port}};{{end}}", "server 10.0.0.1:80;server 10.0.0.2:81;"),
            ("{{range $i, $x := .Instances}}{{$i}}={{$x.Port}} {{$.Backend}} {{end}}", "0=80 db 1=81 db "),
            ("{{join \",\" .Addresses}} {{len .Instances}}", "10.0.0.1:80,10.0.0.2:81 2"),
            ("{{(index .Instances 1).Address}} {{env \"HOME\"}}", "10.0.0.2 /root"),
            ("{{range slice .Instances 1}}{{.Port}}{{end}}", "81"),
            ("{{with .None}}some{{else}}none{{end}}{{range .None}}x{{else}} nothing{{end}}", "none nothing"),
            ("{{json .Instances}}", r#"[{"Address":"10.0.0.1","Port":80},{"Address":"10.0.0.2","Port":81}]"#),
            ("{{index .Instances 0}} {{.None}}", "{Address:10.0.0.1 Port:80} []"),
            ("{{if eq (index .Instances 0).Port 80}}yes{{end}}", "yes"),
        ] {
            assert_eq!(rendered(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_errors() {
        for text in [
            "{{.Nope}}",
            "{{range .Instances}}{{.Adress}}{{end}}",
            "{{.Instances.Address}}",
            "{{index .Instances 2}}",
            "{{range .Backend}}{{end}}",
            "{{eq .Instances .Instances}}",
        ] {
            assert!(rendered(text).is_err(), "{text}");
        }
    }

    #[test]
    fn validation_finds_what_is_no_template_and_renders_nothing() {
        assert!(validate("{{range .Instances}}{{.Nope}}{{end}}").is_ok());
        for text in ["{{range .Instances}}", "{{nope .X}}", "{{ .X"] {
            assert!(validate(text).is_err(), "{text}");
        }
    }
}
