//! HTTP requests by curl, one connection each.

use anyhow::{Result, bail};

use crate::{Host, process::tail};

/// What one request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// The client's port, if there was a connection.
    pub local_port: Option<u16>,
    /// What went wrong, in curl's words.
    pub error: Option<String>,
}

/// Bytes that no body of the lab contains.
const END_OF_FIELD: char = '\x1f';
const END_OF_REPLY: char = '\x1e';

/// Makes one request.
pub fn curl(client: &Host, url: &str) -> Result<Reply> {
    let replies = curl_many(client, url, 1)?;
    let Some(reply) = replies.into_iter().next() else { bail!("curl made no request") };
    Ok(reply)
}

/// Makes `count` requests, one after the other, each by a connection of its own; those that fail say
/// so in their place. The query string numbers them from 1, so that logs show which is which.
pub fn curl_many(client: &Host, url: &str, count: usize) -> Result<Vec<Reply>> {
    curl_with(client, url, count, &[])
}

/// As [`curl_many`], with further arguments for curl.
pub fn curl_with(client: &Host, url: &str, count: usize, more: &[&str]) -> Result<Vec<Reply>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    // curl takes an IPv6 address in brackets for what it is and expands only the range.
    let numbered = format!("{url}{separator}[1-{count}]");
    let record = ["", "%{http_code}", "%{local_port}", "%{exitcode}", "%{errormsg}"].join(&END_OF_FIELD.to_string());
    let format = format!("{record}{END_OF_REPLY}");
    let line = [
        // Neither a configuration file nor a proxy of whoever runs the tests has a say.
        "curl",
        "--disable",
        "--noproxy",
        "*",
        "--silent",
        "--header",
        "Connection: close",
        "--connect-timeout",
        "2",
        "--max-time",
        "10",
        "--write-out",
        &format,
    ];
    let output = client.attempt(line.iter().chain(more).chain([&numbered.as_str()]))?;
    let replies: Vec<Reply> = output.stdout.split_terminator(END_OF_REPLY).map(reply).collect::<Result<_>>()?;
    if replies.len() != count {
        bail!(
            "curl in {} made {} requests of {count} to {url}: {}{}",
            client.namespace(),
            replies.len(),
            output.status,
            tail(&output.stderr)
        );
    }
    Ok(replies)
}

fn reply(record: &str) -> Result<Reply> {
    let fields: Vec<&str> = record.split(END_OF_FIELD).collect();
    let [body, status, local_port, exit_code, error] = fields.as_slice() else {
        bail!("curl wrote a record that is none: {record:?}");
    };
    let number = |text: &str| text.parse().ok().filter(|number| *number != 0);
    let error = match (*exit_code, *error) {
        ("0", _) => None,
        (code, "") => Some(format!("exit code {code}")),
        (_, message) => Some(message.to_owned()),
    };
    Ok(Reply { status: number(status), body: (*body).to_owned(), local_port: number(local_port), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_reply() {
        assert_eq!(
            reply("one\n\x1f200\x1f40000\x1f0\x1f").unwrap(),
            Reply { status: Some(200), body: "one\n".into(), local_port: Some(40000), error: None }
        );
        assert_eq!(
            reply("\x1f000\x1f0\x1f7\x1fcould not connect").unwrap(),
            Reply { status: None, body: String::new(), local_port: None, error: Some("could not connect".into()) }
        );
        assert!(reply("one\n").is_err());
    }
}
