mod commands;
mod complete;
mod errors;
mod registries;
mod vectors;

use std::net::IpAddr;

use ochopod_environment::Env;

use super::*;

const ETH0: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 1));

/// Resolves interfaces of a host with one.
fn resolve(specs: &[String]) -> Result<IpAddr, String> {
    let found = specs.iter().any(|spec| ["eth0", "eth0:inet", "inet"].contains(&spec.as_str()));
    if found { Ok(ETH0) } else { Err(format!("no interface matches {specs:?}, there is eth0 10.2.0.1")) }
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = variables.iter().copied().collect();
    Config::read(
        text,
        &ReadContext {
            env: &env,
            resolve: &resolve,
            plugin: false,
            default_registry: None,
            check: &|_| Vec::new(),
            template: &|_| Ok(()),
        },
    )
}

fn read(text: &str) -> Result<Config, ConfigError> {
    read_with(text, &[])
}

/// Reads a configuration of a registry and this text.
fn config(rest: &str) -> Config {
    read(&format!("{{consul: 'consul:8500', {rest}}}")).unwrap_or_else(|error| panic!("{rest}: {error}"))
}

/// Returns the errors of a configuration of a registry and this text, without positions.
fn errors(rest: &str) -> Vec<String> {
    match read(&format!("{{consul: 'consul:8500', {rest}}}")) {
        Ok(config) => panic!("{rest}: {config:?}"),
        Err(error) => error.errors.into_iter().map(|error| error.text).collect(),
    }
}

/// Returns a command as one line, with `|` between words.
fn line(command: &CommandLine) -> String {
    let words: Vec<&str> = [&command.program].into_iter().chain(&command.arguments).map(String::as_str).collect();
    words.join("|")
}
