//! The table of settings as arguments of a command. Values are text: the reader reports all errors together.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::table::{SETTINGS, Setting, SettingKind};

/// The heading of settings in `--help`.
const HEADING: &str = "Settings";

/// Values of flags, by the names of their settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<&'static str, Vec<String>>);

impl Flags {
    /// Returns the value of a flag.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    /// Returns the values of a repeatable flag.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a value. Names that are not in the table are ignored.
    #[must_use]
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        if let Some(setting) = Setting::find(name) {
            self.0.entry(setting.name).or_default().push(text.into());
        }
        self
    }

    fn update(&mut self, matches: &ArgMatches) {
        for setting in with_flags() {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                self.0.insert(setting.name, values.cloned().collect());
            }
        }
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update(matches);
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.update(matches);
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(with_flags().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn with_flags() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.kind != SettingKind::Variable)
}

fn argument(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name)
        .long(setting.name.replace('_', "-"))
        .value_name(setting.value)
        .help(setting.help_text())
        .help_heading(HEADING);
    match setting.kind {
        SettingKind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        SettingKind::Map => arg.action(ArgAction::Append),
        SettingKind::Text | SettingKind::Variable => arg,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(words: &[&str]) -> Result<Flags, clap::Error> {
        let command = Flags::augment_args(Command::new("run").no_binary_name(true));
        Flags::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn flags_are_stored_by_the_names_of_their_settings() {
        let flags = parse(&["--zk-read", "world", "--local", "--start=false", "--set", "a=1", "--set", "b=2"]).unwrap();
        let texts = ["zk_read", "local", "start", "cluster"].map(|name| flags.text(name));
        assert_eq!(texts, [Some("world"), Some("true"), Some("false"), None]);
        assert_eq!(flags.all("set"), ["a=1", "b=2"]);
        assert_eq!(
            flags,
            Flags::default()
                .with("zk_read", "world")
                .with("local", "true")
                .with("start", "false")
                .with("set", "a=1")
                .with("set", "b=2")
                .with("no_such_setting", "x")
        );
    }

    #[test]
    fn flag_of_a_variable_only_setting_is_rejected() {
        assert!(parse(&["--token", "x"]).is_err());
        assert!(parse(&["--cluster", "a", "--cluster", "b"]).is_err(), "a flag that is not repeatable");
    }
}
