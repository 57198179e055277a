use crate::{Result, exec};

/// Command run inside a pod: `curl -XPOST pod:8080/exec -H 'X-Shell: NAME arguments…'`.
///
/// Each run has a new instance, which is discarded afterwards; runs may overlap.
pub trait Tool {
    /// Returns the first word of the `X-Shell` header. Unique within the plugin, no white space.
    fn name(&self) -> &'static str;

    /// Returns a one-line description.
    fn help(&self) -> &'static str {
        ""
    }

    /// Runs the tool. `uploads` names the files of a multipart request; each can be read at `/uploads/NAME` until the
    /// run ends.
    ///
    /// # Errors
    /// An error is answered as code 1 with its text as output.
    fn run(&mut self, arguments: &[String], uploads: &[String]) -> Result<Output>;
}

/// Output of a tool. Text becomes the output of a success; the output of a program is converted too.
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
