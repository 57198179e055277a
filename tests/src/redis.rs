//! A client of redis, as far as tests need one.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::Result;

const DEADLINE: Duration = Duration::from_secs(20);

/// Sends one command and returns the reply as text: a string, a number, or nothing.
///
/// # Errors
/// If redis cannot be reached, or the reply is an error.
pub async fn request(address: &str, command: &[&str]) -> Result<String> {
    let exchange = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            write!(request, "${}\r\n{word}\r\n", word.len())?;
        }
        stream.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        stream.read_line(&mut head).await?;
        let head = head.trim_end();
        match head.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(text.to_owned()),
            Some(("$", "-1")) => Ok(String::new()),
            Some(("$", length)) => {
                let mut body = vec![0; length.parse()?];
                stream.read_exact(&mut body).await?;
                Ok(String::from_utf8(body)?)
            }
            _ => bail!("unexpected reply of redis {head:?}"),
        }
    };
    let description = || format!("{command:?} of redis at {address}");
    tokio::time::timeout(DEADLINE, exchange).await.with_context(description)?.with_context(description)
}

/// Returns one section of `INFO`, by key.
///
/// # Errors
/// If redis cannot be reached.
pub async fn info(address: &str, section: &str) -> Result<BTreeMap<String, String>> {
    let text = request(address, &["INFO", section]).await?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}
