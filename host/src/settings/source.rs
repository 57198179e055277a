//! Where settings come from, and the list of what is wrong with them.

use super::{Env, SettingError, secret::PREFIX};

/// One setting as it was given.
pub(super) struct Given {
    /// The flag or variable, for errors.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

/// Reads settings, flags first, and gathers everything that is wrong.
pub(super) struct Source<'a> {
    pub(super) env: &'a Env,
    pub(super) errors: Vec<SettingError>,
}

impl<'a> Source<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self { env, errors: Vec::new() }
    }

    /// A setting by its flag or variable. An empty variable is as good as none.
    pub(super) fn given(&mut self, name: &str, flag: Option<&str>) -> Option<Given> {
        if let Some(text) = flag {
            return Some(Given { name: format!("--{}", name.replace('_', "-")), text: text.to_owned() });
        }
        let name = format!("{PREFIX}{name}");
        let text = self.env.text(&name)?.to_owned();
        Some(Given { name, text })
    }

    /// A setting that must have a form.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        flag: Option<&str>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(name, flag)?;
        let value = parse(&given.text);
        if value.is_none() {
            self.bad(given.name, &given.text, expected);
        }
        value
    }

    /// Notes that a setting is missing.
    pub(super) fn missing(&mut self, name: &str, expected: impl Into<String>) {
        self.errors.push(SettingError::missing(name, expected));
    }

    /// Notes a bad setting.
    pub(super) fn bad(&mut self, name: impl Into<String>, value: &str, expected: impl Into<String>) {
        self.errors.push(SettingError::new(name, value, expected));
    }
}
