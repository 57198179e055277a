//! `ochopod pilot`: flags as Go has them, since that is how ContainerPilot's users wrote them.

use std::ffi::OsString;

use clap::Args;

/// `ochopod pilot`
///
/// Flags end at the first word that is none; that word and all after it are the application.
#[allow(clippy::doc_markdown, reason = "the comments on fields are what --help shows")]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Pilot {
    /// The configuration: file://PATH, PATH, or its text (CONTAINERPILOT)
    #[arg(long, value_name = "FILE|TEXT")]
    pub config: Option<String>,
    /// Only render the configuration's template
    #[arg(long)]
    pub template: bool,
    /// Where --template writes: file://PATH, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: String,
    /// Only print the version
    #[arg(long)]
    pub version: bool,
    /// Whether the configuration is to be validated and nothing else: the word `check` before all flags.
    #[arg(long, hide = true, conflicts_with = "words")]
    pub check: bool,
    /// The application and its arguments, templates of the configuration's kind too. Without one, serves until it is asked
    /// to end. The word check before all flags, and no application, only validates the configuration
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub words: Vec<OsString>,
}

/// The flags that take the next word, unless they have `=`.
const WITH_VALUES: [&str; 2] = ["config", "out"];

/// Puts the arguments of `ochopod pilot` as the parser expects them: two dashes before every flag, and `--` before the
/// application. `check` may stand before the flags. Other arguments are left alone.
pub(super) fn normalize(arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_none_or(|word| word != "pilot") {
        return arguments;
    }
    let mut words = arguments.into_iter();
    let mut normal: Vec<OsString> = words.by_ref().take(2).collect();
    let mut words = words.peekable();
    let check = words.next_if(|word| word == "check");
    while let Some(flag) = words.next_if(is_flag) {
        if flag == "--" {
            break;
        }
        let text = flag.to_string_lossy().trim_start_matches('-').to_owned();
        let flag = match flag.to_str() {
            Some(short) if short.len() == 2 => short.to_owned(),
            _ => format!("--{}", switch(&text)),
        };
        normal.push(flag.into());
        if WITH_VALUES.contains(&&*text) {
            normal.extend(words.next());
        }
    }
    normal.extend(check.map(|_| "--check".into()));
    normal.push("--".into());
    normal.extend(words);
    normal
}

fn is_flag(word: &OsString) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

/// Go's flags that are true or false may say so.
fn switch(flag: &str) -> &str {
    flag.strip_suffix("=true").unwrap_or(flag)
}

#[cfg(test)]
mod tests {
    use crate::cli::{CliError, Command, Pilot, parse};

    fn parsed(line: &str) -> Result<Pilot, CliError> {
        match parse(line.split(' ').map(Into::into))?.command {
            Command::Pilot(pilot) => Ok(*pilot),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_have_one_dash_or_two_and_end_at_the_first_word() {
        for line in [
            "ochopod pilot -config file:///app.json app -config x --debug",
            "ochopod pilot --config file:///app.json app -config x --debug",
            "ochopod pilot -config=file:///app.json app -config x --debug",
            "ochopod pilot -config file:///app.json -- app -config x --debug",
        ] {
            let pilot = parsed(line).unwrap();
            assert_eq!(pilot.config.as_deref(), Some("file:///app.json"), "{line}");
            assert_eq!(pilot.words, ["app", "-config", "x", "--debug"], "{line}");
            assert!(!pilot.check && !pilot.template);
        }
    }

    #[test]
    fn a_template_goes_to_standard_output_or_to_a_file() {
        assert_eq!(parsed("ochopod pilot -template -config {}").unwrap().out, "-");
        let pilot = parsed("ochopod pilot -template=true -out file:///x -config {}").unwrap();
        assert!(pilot.template && pilot.out == "file:///x" && pilot.words.is_empty());
        assert!(parsed("ochopod pilot -version").unwrap().version);
    }

    #[test]
    fn check_stands_before_the_flags_and_takes_no_application() {
        assert!(parsed("ochopod pilot check -config x").unwrap().check);
        assert_eq!(parsed("ochopod pilot -config x check").unwrap().words, ["check"]);
        assert!(matches!(parsed("ochopod pilot check -config x nginx"), Err(CliError::Usage(_))));
    }

    #[test]
    fn what_is_no_flag_is_bad_usage_and_help_is_an_answer() {
        for line in ["ochopod pilot -nope app", "ochopod pilot -config", "ochopod pilot -x"] {
            assert!(matches!(parsed(line), Err(CliError::Usage(_))), "{line}");
        }
        for line in ["ochopod pilot -h", "ochopod pilot -help", "ochopod pilot --help"] {
            assert!(matches!(parsed(line), Err(CliError::Shown(_))), "{line}");
        }
    }
}
