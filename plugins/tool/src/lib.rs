//! Two tools for `POST /exec`: one of its own, and one that runs a line of shell in the container.

use std::time::Duration;

use ochopod_sdk::{Cluster, Command, Lifecycle, Output, Result, Settings, Tool, Wants, exec};

#[derive(Default)]
struct Sleeper;

impl Lifecycle for Sleeper {
    fn settings() -> Settings {
        Settings { wants: Wants::default().run("/bin/sh"), ..Settings::default() }
    }

    fn configure(&mut self, _: &Cluster) -> Result<Command> {
        Ok(Command::new("sleep").arg("3600"))
    }
}

#[derive(Default)]
struct Echo;

impl Tool for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn help(&self) -> &'static str {
        "prints its arguments"
    }

    fn run(&mut self, arguments: &[String], _: &[String]) -> Result<Output> {
        Ok(format!("your command was {}", arguments.join(" ")).into())
    }
}

#[derive(Default)]
struct Shell;

impl Tool for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn help(&self) -> &'static str {
        "runs a shell command line in the container"
    }

    fn run(&mut self, arguments: &[String], _: &[String]) -> Result<Output> {
        let line = arguments.join(" ");
        Ok(exec::run(["/bin/sh", "-c", &line], b"", Duration::from_mins(1))?.into())
    }
}

ochopod_sdk::export!(Sleeper, tools: [Echo, Shell]);

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn echo_prints_its_arguments() {
        assert_eq!(Echo.run(&words("a b"), &[]).unwrap(), "your command was a b".into());
    }

    #[test]
    fn shell_runs_the_line_and_returns_its_code_and_lines() {
        testing::mock_exec(|argv, _| {
            assert_eq!(argv, ["/bin/sh", "-c", "ls | wc -l"]);
            Ok(exec::Output { code: 2, stdout: b"one\ntwo\n".to_vec(), stderr: b"lost".to_vec() })
        });
        let output = Shell.run(&words("ls | wc -l"), &[]).unwrap();
        assert_eq!((output.code, output.stdout), (2, vec!["one".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn a_denial_names_the_flag_that_grants_it() {
        testing::mock_exec(|_, _| Err(exec::Error::Denied("/bin/sh not granted: use --run /bin/sh".to_owned())));
        assert!(Shell.run(&words("ls"), &[]).unwrap_err().to_string().contains("--run /bin/sh"));
    }
}
