//! Flags in the syntax of Go, as in ContainerPilot.

use std::ffi::OsString;

use clap::{Args, Parser};

/// Run a command with ContainerPilot 2 features: service registration, health checks, backends and hooks
///
/// Flags take one or two dashes and end at the first non-flag word, which starts the application's command line.
/// SIGTERM, SIGINT, SIGQUIT, SIGRTMIN+3, and SIGWINCH without a terminal, deregister and then stop the application; a
/// second one kills it. SIGHUP reloads the configuration, SIGUSR1 toggles maintenance, other signals are forwarded to
/// the application, which also gets the terminal. The exit code is that of the application.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ochopod-pilot")]
pub struct StandaloneArgs {
    /// Flags and application.
    #[command(flatten)]
    pub pilot: PilotArgs,
}

/// `ochopod pilot`
///
/// Flags end at the first non-flag word, which starts the application's command line.
#[allow(clippy::doc_markdown, reason = "the comments on fields are what --help shows")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PilotArgs {
    /// Configuration: file://PATH, PATH, or its text (CONTAINERPILOT)
    #[arg(long, value_name = "FILE|TEXT")]
    pub config: Option<String>,
    /// Render the configuration template and exit
    #[arg(long)]
    pub template: bool,
    /// Output of --template: file://PATH, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: String,
    /// User (name or UID) for the application and all programs of the configuration; requires root; also sets HOME
    /// (ochopod_user; default: the host's user)
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Their only group (name or GID); requires root (ochopod_group; default: all groups of the user)
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Resource limit for them, as in --rlimit nofile=1024:4096; repeatable (ochopod_rlimit_NAME)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub rlimit: Vec<String>,
    /// Print the version and exit
    #[arg(long)]
    pub version: bool,
    /// Validate the configuration and exit: the word `check` before all flags.
    #[arg(long, hide = true, conflicts_with = "command")]
    pub check: bool,
    /// With `pilot check`: validate the configuration as that of a pod (ochopod run --config)
    #[arg(long, requires = "check")]
    pub pod: bool,
    /// Application and arguments, each rendered as a template like the configuration. Without an application, runs until
    /// terminated. `pilot check` (before all flags) validates the configuration and exits
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Flags that take the next word, unless they contain `=`.
const FLAGS_WITH_VALUES: [&str; 5] = ["config", "group", "out", "rlimit", "user"];

/// Rewrites arguments for the parser: two dashes before every flag, and `--` before the application. `check` may stand before
/// the flags, which follow this number of words.
#[must_use]
pub fn normalize_go_flags(arguments: Vec<OsString>, words_before: usize) -> Vec<OsString> {
    let mut words = arguments.into_iter();
    let mut normal: Vec<OsString> = words.by_ref().take(words_before).collect();
    let mut words = words.peekable();
    let check = words.next_if(|word| word == "check");
    while let Some(flag) = words.next_if(is_flag) {
        if flag == "--" {
            break;
        }
        let text = flag.to_string_lossy().trim_start_matches('-').to_owned();
        let flag = match flag.to_str() {
            Some(short) if short.len() == 2 => short.to_owned(),
            _ => format!("--{}", strip_true(&text)),
        };
        normal.push(flag.into());
        if FLAGS_WITH_VALUES.contains(&&*text) {
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

/// Removes the value that Go permits for boolean flags.
fn strip_true(flag: &str) -> &str {
    flag.strip_suffix("=true").unwrap_or(flag)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Error};

    use super::*;

    fn parsed(line: &str) -> Result<PilotArgs, Error> {
        let words = line.split(' ').map(Into::into).collect();
        StandaloneArgs::try_parse_from(normalize_go_flags(words, 1)).map(|args| args.pilot)
    }

    fn is_usage_error(line: &str) -> bool {
        parsed(line).unwrap_err().use_stderr()
    }

    #[test]
    fn definitions_are_consistent() {
        StandaloneArgs::command().debug_assert();
    }

    #[test]
    fn flags_have_one_or_two_dashes_and_end_at_the_first_word() {
        for line in [
            "ochopod-pilot -config file:///app.json app -config x --debug",
            "ochopod-pilot --config file:///app.json app -config x --debug",
            "ochopod-pilot -config=file:///app.json app -config x --debug",
            "ochopod-pilot -config file:///app.json -- app -config x --debug",
        ] {
            let pilot = parsed(line).unwrap();
            assert_eq!(pilot.config.as_deref(), Some("file:///app.json"), "{line}");
            assert_eq!(pilot.command, ["app", "-config", "x", "--debug"], "{line}");
            assert!(!pilot.check && !pilot.template);
        }
    }

    #[test]
    fn privileges_of_the_application_are_flags() {
        let line = "ochopod-pilot -user nobody -group=12 -rlimit nofile=5 --rlimit core=0 -config {} app -user root";
        let pilot = parsed(line).unwrap();
        assert_eq!((pilot.user.as_deref(), pilot.group.as_deref()), (Some("nobody"), Some("12")));
        assert_eq!((pilot.rlimit.len(), pilot.command.len()), (2, 3));
    }

    #[test]
    fn template_output_is_standard_output_or_a_file() {
        assert_eq!(parsed("ochopod-pilot -template -config {}").unwrap().out, "-");
        let pilot = parsed("ochopod-pilot -template=true -out file:///x -config {}").unwrap();
        assert!(pilot.template && pilot.out == "file:///x" && pilot.command.is_empty());
        assert!(parsed("ochopod-pilot -version").unwrap().version);
    }

    #[test]
    fn check_precedes_the_flags_and_accepts_no_application() {
        assert!(parsed("ochopod-pilot check -config x").unwrap().check);
        assert_eq!(parsed("ochopod-pilot -config x check").unwrap().command, ["check"]);
        assert!(is_usage_error("ochopod-pilot check -config x nginx"));
    }

    #[test]
    fn unknown_flag_is_a_usage_error_and_help_is_info() {
        for line in ["ochopod-pilot -nope app", "ochopod-pilot -config", "ochopod-pilot -x"] {
            assert!(is_usage_error(line), "{line}");
        }
        for line in ["ochopod-pilot -h", "ochopod-pilot -help", "ochopod-pilot --help"] {
            assert!(!is_usage_error(line), "{line}");
        }
    }
}
