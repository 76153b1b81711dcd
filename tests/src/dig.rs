//! DNS questions by dig, kdig and drill, and their outputs understood, which are alike but for the lines about EDNS.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};

use crate::{Host, process::tail};

/// A response, as a program shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigAnswer {
    /// The response code, such as `NOERROR`.
    pub status: String,
    /// The header's flags, such as `qr` and `aa`.
    pub flags: Vec<String>,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section without the OPT record.
    pub additional: Vec<Record>,
    /// The lines of the OPT record, such as `EDNS: version: 0, flags:; udp: 1232` by dig.
    pub edns: Vec<String>,
    /// The size of the message.
    pub bytes: usize,
    /// All that the program wrote.
    pub text: String,
}

/// One resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner's name, with its last dot.
    pub name: String,
    /// The time to live, in seconds.
    pub ttl: u32,
    /// The type, such as `A`.
    pub kind: String,
    /// The data in presentation form.
    pub data: String,
}

impl DigAnswer {
    /// Whether the header has the flag, such as `tc`.
    #[must_use]
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }

    /// The data of the answers of one type, in order.
    #[must_use]
    pub fn data(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.answers.iter().filter(|record| record.kind == kind);
        of_kind.map(|record| record.data.as_str()).collect()
    }
}

/// Asks `server` once for `name` and `kind`, with `more` arguments for dig; no response is an error.
pub fn dig(client: &Host, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> Result<DigAnswer> {
    let server = format!("@{server}");
    // `-r`: a configuration file of whoever runs the tests has no say.
    let line = ["dig", "-r", &server, "+tries=1", "+time=2"];
    asked(client, &[&line, more, &["-q", name, "-t", kind]].concat())
}

/// As [`dig`], by Knot's kdig, which uses EDNS only if `more` says so.
pub fn kdig(client: &Host, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> Result<DigAnswer> {
    let server = format!("@{server}");
    let line = ["kdig", &server, "+retry=0", "+timeout=2"];
    asked(client, &[&line, more, &["-q", name, "-t", kind]].concat())
}

/// As [`dig`], by NLnet Labs' drill, which uses EDNS only if `more` says so.
pub fn drill(client: &Host, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> Result<DigAnswer> {
    let server = format!("@{server}");
    asked(client, &[&["drill"], more, &[name, &server, kind]].concat())
}

fn asked(client: &Host, line: &[&str]) -> Result<DigAnswer> {
    let output = client.attempt(line)?;
    if !output.status.success() {
        bail!(
            "`{}` in {}: {}{}{}",
            line.join(" "),
            client.namespace(),
            output.status,
            tail(&output.stdout),
            tail(&output.stderr)
        );
    }
    parse(&output.stdout).with_context(|| format!("reading what `{}` says", line.join(" ")))
}

fn parse(text: &str) -> Result<DigAnswer> {
    let mut answer = DigAnswer { text: text.to_owned(), ..DigAnswer::default() };
    let mut section = "";
    for line in text.lines() {
        if let Some(header) = line.strip_prefix(";; ->>HEADER<<-") {
            let status = header.split_once("status: ").or_else(|| header.split_once("rcode: "));
            let status = status.and_then(|(_, rest)| rest.split([',', ';']).next());
            answer.status = status.unwrap_or_default().to_owned();
        } else if let Some(flags) = line.strip_prefix(";; flags:").or_else(|| line.strip_prefix(";; Flags:")) {
            let flags = flags.split(';').next().unwrap_or_default();
            answer.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if let Some(size) = line.strip_prefix(";; MSG SIZE  rcvd: ") {
            answer.bytes = size.parse().context("reading the size of the message")?;
        } else if let Some(size) = line.strip_prefix(";; Received ").and_then(|size| size.strip_suffix(" B")) {
            answer.bytes = size.parse().context("reading the size of the message")?;
        } else if let Some(name) = line.strip_prefix(";; ").and_then(section_name) {
            section = name;
        } else if let Some(edns) = line.strip_prefix(";; ").filter(|line| is_edns(line, section)) {
            answer.edns.push(edns.to_owned());
        } else if line.is_empty() {
            section = "";
        } else if let (Some(line), "OPT PSEUDO") = (line.strip_prefix("; "), section) {
            answer.edns.push(line.to_owned());
        } else if !line.starts_with(';') {
            let records = match section {
                "ANSWER" => &mut answer.answers,
                "AUTHORITY" => &mut answer.authority,
                "ADDITIONAL" => &mut answer.additional,
                _ => continue,
            };
            records.push(record(line)?);
        }
    }
    if answer.status.is_empty() {
        bail!("it shows no header{}", tail(text));
    }
    Ok(answer)
}

fn section_name(line: &str) -> Option<&str> {
    line.strip_suffix("SECTION:").map(str::trim_end)
}

/// Whether this comment is about EDNS: kdig has a section for it, drill a line.
fn is_edns(line: &str, section: &str) -> bool {
    section == "EDNS PSEUDO" || line.starts_with("EDNS: ")
}

/// `name ttl class type data`; the data keeps its inner white space.
fn record(line: &str) -> Result<Record> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        rest = after.trim_start();
        word
    };
    let (name, ttl, _class, kind) = (word(), word(), word(), word());
    Ok(Record {
        name: name.to_owned(),
        ttl: ttl.parse().with_context(|| format!("reading the TTL of {line:?}"))?,
        kind: kind.to_owned(),
        data: rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
; <<>> DiG 9.18.33 <<>> -r @10.77.0.1 +tries=1 +time=2 -q www.example.com -t ANY
; (1 server found)
;; global options: +cmd
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 26145
;; flags: qr aa rd; QUERY: 1, ANSWER: 2, AUTHORITY: 1, ADDITIONAL: 2
;; WARNING: recursion requested but not available

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags: do; udp: 1232
; COOKIE: 0123456789abcdef0100000066f0c0de0011223344556677 (good)
;; QUESTION SECTION:
;www.example.com.\t\tIN\tANY

;; ANSWER SECTION:
www.example.com.\t30\tIN\tA\t192.0.2.1
www.example.com.\t30\tIN\tTXT\t\"two  spaces\" \";; no comment\"

;; AUTHORITY SECTION:
example.com.\t\t3600\tIN\tNS\tns.example.com.

;; ADDITIONAL SECTION:
ns.example.com.\t\t3600\tIN\tA\t192.0.2.53

;; Query time: 0 msec
;; SERVER: 10.77.0.1#53(10.77.0.1) (UDP)
;; WHEN: Thu Jan 01 00:00:00 UTC 1970
;; MSG SIZE  rcvd: 142
";

    #[test]
    fn every_section_is_read() {
        let answer = parse(TEXT).unwrap();
        assert_eq!(answer.status, "NOERROR");
        assert_eq!(answer.flags, ["qr", "aa", "rd"]);
        assert_eq!(answer.bytes, 142);
        assert_eq!(answer.edns.len(), 2);
        assert_eq!(answer.data("A"), ["192.0.2.1"]);
        assert_eq!(answer.data("TXT"), ["\"two  spaces\" \";; no comment\""]);
        let owner = |records: &[Record]| records[0].name.clone();
        assert_eq!(owner(&answer.authority), "example.com.");
        assert_eq!(owner(&answer.additional), "ns.example.com.");
        assert_eq!(answer.additional[0].ttl, 3600);
        assert!(answer.has_flag("aa") && !answer.has_flag("tc"));
    }

    #[test]
    fn kdig_and_drill_say_the_same_in_their_ways() {
        let records = ";; ANSWER SECTION:\na.example.\t5\tIN\tA\t192.0.2.1\n\n";
        let kdig = format!(
            ";; ->>HEADER<<- opcode: QUERY; status: NOERROR; id: 7\n;; Flags: qr aa rd; QUERY: 1; ANSWER: 1; AUTHORITY: 0; \
             ADDITIONAL: 1\n\n;; EDNS PSEUDOSECTION:\n;; Version: 0; flags: ; UDP size: 1232 B; ext-rcode: NOERROR\n\n\
             {records};; Received 51 B\n"
        );
        let drill = format!(
            ";; ->>HEADER<<- opcode: QUERY, rcode: NOERROR, id: 7\n;; flags: qr aa rd ; QUERY: 1, ANSWER: 1, AUTHORITY: 0, \
             ADDITIONAL: 0 \n{records};; AUTHORITY SECTION:\n\n;; EDNS: version 0; flags: ; udp: 1232\n\
             ;; MSG SIZE  rcvd: 51\n"
        );
        for (text, edns) in [
            (kdig, "Version: 0; flags: ; UDP size: 1232 B; ext-rcode: NOERROR"),
            (drill, "EDNS: version 0; flags: ; udp: 1232"),
        ] {
            let answer = parse(&text).unwrap();
            assert_eq!((answer.status.as_str(), answer.bytes), ("NOERROR", 51));
            assert_eq!(answer.flags, ["qr", "aa", "rd"]);
            assert_eq!(answer.data("A"), ["192.0.2.1"]);
            assert_eq!(answer.edns, [edns]);
        }
    }

    #[test]
    fn a_text_without_a_header_is_no_answer() {
        assert!(parse(";; communications error to 10.77.0.1#53: timed out\n").is_err());
    }
}
