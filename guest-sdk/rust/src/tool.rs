use crate::{Result, exec};

/// A command that people run inside a pod: `curl -XPOST pod:8080/exec -H 'X-Shell: NAME arguments…'`.
///
/// Each run has an instance of its own, which is dropped afterwards; runs may overlap.
pub trait Tool {
    /// First word of the `X-Shell` header. Unique within the plugin, no white space.
    fn name(&self) -> &'static str;

    /// One line for people.
    fn help(&self) -> &'static str {
        ""
    }

    /// Runs it. `uploads` names the files of a multipart request; each can be read at `/uploads/NAME` meanwhile.
    ///
    /// # Errors
    /// An error is answered as code 1 with its text as output.
    fn run(&mut self, arguments: &[String], uploads: &[String]) -> Result<Output>;
}

/// What a tool gave. Text becomes the output of a success, and so does what a program gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// 0 for success, by custom.
    pub code: i32,
    /// Lines without their ends.
    pub stdout: Vec<String>,
}

impl<T: AsRef<str>> From<T> for Output {
    fn from(text: T) -> Self {
        Self { code: 0, stdout: text.as_ref().lines().map(str::to_owned).collect() }
    }
}

impl From<exec::Output> for Output {
    fn from(output: exec::Output) -> Self {
        Self { code: output.code, ..Self::from(String::from_utf8_lossy(&output.stdout)) }
    }
}
