mod mistakes;
mod places;
mod vectors;
mod whole;

use std::net::IpAddr;

use super::*;
use crate::settings::Env;

const ETH0: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 1));

/// A machine with one interface.
fn resolve(specs: &[String]) -> Result<IpAddr, String> {
    let found = specs.iter().any(|spec| ["eth0", "eth0:inet", "inet"].contains(&spec.as_str()));
    if found { Ok(ETH0) } else { Err(format!("no interface matches {specs:?}, there is eth0 10.2.0.1")) }
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = variables.iter().copied().collect();
    Config::read(text, &Reading { env: &env, resolve: &resolve, plugin: false, default_place: None })
}

fn read(text: &str) -> Result<Config, ConfigError> {
    read_with(text, &[])
}

/// What is read of a configuration that has this besides its place.
fn config(rest: &str) -> Config {
    read(&format!("{{consul: 'consul:8500', {rest}}}")).unwrap_or_else(|error| panic!("{rest}: {error}"))
}

/// The mistakes of a configuration that has this besides its place, without the positions.
fn mistakes(rest: &str) -> Vec<String> {
    match read(&format!("{{consul: 'consul:8500', {rest}}}")) {
        Ok(config) => panic!("{rest}: {config:?}"),
        Err(error) => error.mistakes.into_iter().map(|mistake| mistake.text).collect(),
    }
}

/// A command as one line, with `|` between words.
fn line(command: &Command) -> String {
    let words: Vec<&str> = [&command.program].into_iter().chain(&command.arguments).map(String::as_str).collect();
    words.join("|")
}
