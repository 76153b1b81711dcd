//! What can be wrong with a config: each with its place, what it is, and what to write instead.

use crate::model::intent::Mode;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};
use thiserror::Error;

/// All that is wrong with a config, from the first line to the last.
#[derive(Debug, Error)]
pub struct ConfigErrors {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, by line; at least one.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { file, line, place, problem }) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{}:", file.as_deref().unwrap_or(&self.path).display())?;
            if let Some(line) = line {
                write!(formatter, "{line}:")?;
            }
            write!(formatter, " {place}{problem}")?;
        }
        Ok(())
    }
}

impl ConfigErrors {
    /// In one line, and without places in a text that the operator does not see.
    pub fn without_lines(&self) -> String {
        let errors = self.errors.iter().map(|ConfigError { place, problem, .. }| format!("{place}{problem}"));
        errors.collect::<Vec<_>>().join("; ")
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct ConfigError {
    /// The file, if it is one that the config names.
    pub file: Option<PathBuf>,
    /// The line, counted from one; none if something is missing in the whole file.
    pub line: Option<usize>,
    /// The part of the config.
    pub place: Place,
    /// What it is.
    pub problem: Problem,
}

/// A part of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the parts")]
pub enum Place {
    Top,
    Api,
    Check(String),
    Service(String),
    Dns,
    DnsLimit,
    Domain(String),
    Name(String),
    Records,
    Tunnel,
    Tracking,
    Limits,
    Resolver,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Api => write!(formatter, "api: "),
            Self::Check(name) => write!(formatter, "check `{name}`: "),
            Self::Service(name) => write!(formatter, "service `{name}`: "),
            Self::Dns => write!(formatter, "dns: "),
            Self::DnsLimit => write!(formatter, "dns.limit: "),
            Self::Domain(name) => write!(formatter, "domain `{name}`: "),
            Self::Name(name) => write!(formatter, "name `{name}`: "),
            Self::Records => write!(formatter, "records: "),
            Self::Tunnel => write!(formatter, "tunnel: "),
            Self::Tracking => write!(formatter, "tracking: "),
            Self::Limits => write!(formatter, "limits: "),
            Self::Resolver => write!(formatter, "resolver: "),
        }
    }
}

/// What is wrong, and what to write instead.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum Problem {
    // The text.
    #[error("cannot read the config: {error}")]
    Unreadable { error: io::Error },
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}`; the keys here are {}", list(known))]
    UnknownKey { key: String, known: Vec<String> },
    #[error("{found} where {expected} belongs")]
    WrongType { found: String, expected: String },

    // Any value.
    #[error("no `{key}`; write {cure}")]
    Missing { key: &'static str, cure: &'static str },
    #[error("{what} {value} is out of range; write {least} to {most}")]
    OutOfRange { what: &'static str, value: i64, least: u32, most: u32 },
    #[error("{what} {value} is not a port; write 1 to 65535")]
    NotAPort { what: &'static str, value: i64 },
    #[error("port `{word}` is neither a number nor \"any\"; write 1 to 65535, or \"any\"")]
    UnknownPort { word: String },
    #[error("{what} `{value}` is not a network; write one such as {example}")]
    NotANetwork { what: &'static str, value: String, example: &'static str },
    #[error("{what} `{value}` has bits behind its prefix; write {network}/{prefix}")]
    BitsBehindPrefix { what: &'static str, value: String, network: IpAddr, prefix: u32 },
    #[error("{what} has a prefix of {prefix} bits; write /{least} to /{most}")]
    PrefixLength { what: &'static str, prefix: u32, least: u32, most: u32 },
    #[error("{what} `{value}` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10")]
    NotAnAddress { what: &'static str, value: String },
    #[error("{what} {address} is {kind}; write {cure}")]
    UnusableAddress { what: &'static str, address: IpAddr, kind: &'static str, cure: &'static str },
    #[error("{what} `{value}` is unknown; write {known}")]
    UnknownChoice { what: &'static str, value: String, known: String },
    #[error("{what} `{path}` is not an absolute path; begin it with `/`")]
    RelativePath { what: &'static str, path: String },
    #[error("pins `{path}` has a dot in it, which bpffs does not allow; choose another name")]
    DottedPins { path: String },
    #[error("{count} {what} are more than the maps hold; write at most {most}")]
    TooMany { what: &'static str, count: usize, most: u32 },
    #[error("{count} {what} are more than the maps hold; write at most {limit}, or {key} = {count} in [limits]")]
    BeyondLimit { what: &'static str, count: usize, key: &'static str, limit: u32 },
    #[error("all slot tables together have {count} slots; write smaller `slots`, at most {most} in all")]
    TooManySlots { count: u64, most: u64 },
    #[error("nothing to do; write a [[service]], or [dns] with a [[dns.name]]")]
    NothingToDo,

    // Interfaces.
    #[error("no interface; write interfaces = [\"eth0\"] with the names that `ip link` shows")]
    NoInterfaces,
    #[error("interface `{name}` is there twice; write it once")]
    DuplicateInterface { name: String },
    #[error(
        "`{name}` is not the name of an interface; write 1 to 15 bytes without spaces, `/` and `:`, as `ip link` shows it"
    )]
    InterfaceName { name: String },

    // The secret.
    #[error("no `secret`; write secret = \"...\" or secret_file = \"...\" with the output of `openssl rand -hex 16`")]
    NoSecret,
    #[error("both `secret` and `secret_file`; write one of them")]
    TwoSecrets,
    #[error("the secret has {length} characters, 16 are the least; write the output of `openssl rand -hex 16`")]
    ShortSecret { length: usize },
    #[error("cannot read secret_file {}: {error}; make it with `openssl rand -hex 16 > {0}`", path.display())]
    SecretFile { path: PathBuf, error: io::Error },

    // The API.
    #[error("`{value}` is not an address with a port; write one such as 127.0.0.1:8080 or [::1]:8080")]
    NotASocket { value: String },
    #[error("{address} is there twice; write it once")]
    DuplicateSocket { address: SocketAddr },
    #[error("{address} is no loopback address, and who sees the token has it; write `certificate` and `key`")]
    ClearToken { address: SocketAddr },
    #[error("`certificate` and `key` are needed together; write both")]
    HalfOfTls,

    // Checks.
    #[error("timeout_ms {timeout} is longer than interval_ms {interval}; write {interval} or less")]
    TimeoutBeyondInterval { timeout: u32, interval: u32 },
    #[error("`{key}` means something only with kind = {kinds}; write that, or leave it out")]
    OtherKind { key: &'static str, kinds: &'static str },
    #[error("`{key}` means something only with `flap_turns`; write flap_turns = 4, or leave it out")]
    WithoutFlapTurns { key: &'static str },
    #[error("probe = \"service\" means nothing with this kind; leave it out, or write another kind")]
    ProbeOfKind,
    #[error(
        "check `{check}` goes to a service's address (probe = \"service\"), at which {user} gets nothing; write the name of another \
         check"
    )]
    ProbeOfService { check: String, user: &'static str },
    #[error("`port` means nothing with kind = \"icmp\"; leave it out")]
    PortOfIcmp,
    #[error("path `{path}` is none of a page; begin it with `/`, and write what is not a letter or digit as in %20")]
    HttpPath { path: String },
    #[error("{what} `{value}` is not the name of a host; write one such as www.example.com")]
    HostName { what: &'static str, value: String },
    #[error("status `{value}` is no range of statuses; write one such as \"200-399\" or \"200,301-302\"")]
    StatusRange { value: String },
    #[error("`body` is never in an answer to HEAD; write method = \"GET\", or leave `body` out")]
    BodyOfHead,
    #[error("cannot read ca_file {}: {error}; write the path of a PEM file, from the config's folder", path.display())]
    AuthoritiesFile { path: PathBuf, error: io::Error },
    #[error("the file has no certificates that can be read; write a PEM file with those of the authorities")]
    NoAuthorities,
    #[error("`ca_file` means nothing with verify = false; leave one of them out")]
    AuthoritiesUnused,
    #[error("{address} is never in the answer that is expected; write its type, A or AAAA, and rcode = \"NOERROR\"")]
    NeverAnswered { address: IpAddr },
    #[error("`{key}` is empty; leave it out")]
    EmptyText { key: &'static str },
    #[error("{key} `{value}` is not `hex:` and pairs of hexadecimal digits; write one such as \"hex:00ff\"")]
    NotHex { key: &'static str, value: String },
    #[error("`{key}` has {length} bytes; write at most {most}, which fit a datagram on every link")]
    LongDatagram { key: &'static str, length: usize, most: usize },
    #[error("check `{check}` asks no agent; write the name of a check with kind = \"agent\"")]
    NotAnAgent { check: String },
    #[error("there is no check `{check}`; {}", checks(known))]
    UnknownCheck { check: String, known: Vec<String> },
    #[error("check `{check}` has no port, and {user} needs one to connect to; write `port` in [check.{check}]")]
    CheckWithoutPort { check: String, user: &'static str },
    #[error(
        "{user} has no check of its own; write check = \"...\", the name of a check with a TCP port that tells of it"
    )]
    WithoutCheck { user: &'static str },

    // Services and backends.
    #[error("cannot read backends_file {}: {error}; write the path of a file, from the config's folder", path.display())]
    TargetsFile { path: PathBuf, error: io::Error },
    #[error(
        "backends_file {}: {error}; write JSON such as [{{\"targets\": [\"10.0.0.11:8080\"], \"labels\": {{\"weight\": \"2\"}}}}]",
        path.display()
    )]
    TargetsJson { path: PathBuf, error: serde_json::Error },
    #[error(
        "backends_file {}: target `{target}` is not an IP address with or without a port; write one such as 10.0.0.11:8080",
        path.display()
    )]
    TargetsTarget { path: PathBuf, target: String },
    #[error(
        "backends_file {}: label {name} `{value}` can't be read; write \"weight\": \"2\" or \"backup\": \"true\"",
        path.display()
    )]
    TargetsLabel { path: PathBuf, name: &'static str, value: String },
    #[error("`{name}` is not a name for a service; write letters, digits, `-`, `_` and `.`")]
    ServiceName { name: String },
    #[error("another service, at line {line}, has this name; write another one")]
    DuplicateServiceName { line: usize },
    #[error(
        "service `{other}`, at line {line}, has the same address, port and protocol; change one of them, or merge the services"
    )]
    DuplicateService { other: String, line: usize },
    #[error("DNS questions are answered at {address} port {port}; write another address or port")]
    ServiceAtDns { address: IpAddr, port: u16 },
    #[error("DNS questions are answered at {address}; write another address, or a port instead of \"any\"")]
    AnyPortAtDns { address: IpAddr },
    #[error("`udp` is for services with protocol = \"udp\"; leave it out")]
    UdpOfTcp,
    #[error(
        "service `{other}`, at line {line}, has the same address and echo = {echo}; write the same in both, since an address is \
         answered for or not"
    )]
    OtherEcho { other: String, line: usize, echo: bool },
    #[error("slots {slots} is not a prime; write {prime}")]
    SlotsNotPrime { slots: u32, prime: u32 },
    #[error(
        "{slots} slots are too few for a backend with weight {weight} of {total}, which needs a share of at least 2; {}",
        more_slots(*enough)
    )]
    TooFewSlots { slots: u32, weight: u32, total: u64, enough: Option<u32> },
    #[error("both `{one}` and `{other}`; write one of them")]
    TwoPlaces { one: &'static str, other: &'static str },
    #[error("`{key}` is as the SRV records say; leave it out")]
    SaidBySrv { key: &'static str },
    #[error("host `{value}` is an address; write address = \"{value}\"")]
    AddressAsHost { value: String },
    #[error(
        "`{value}` is not the address of a resolver; write one such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
    )]
    NotANameserver { value: String },
    #[error(
        "no nameserver; write nameservers = [\"192.0.2.53\"], or leave [resolver] out to ask those of /etc/resolv.conf"
    )]
    NoNameservers,
    #[error("no backend; write a [[service.backend]] with its address")]
    NoBackends,
    #[error("`drain_seconds` is for backends with state = \"drain\"; write that, or leave it out")]
    NotDrained,
    #[error("every backend that has a weight is a backup; leave `backup` out for one")]
    OnlyBackups,
    #[error(
        "minimum_healthy {minimum} is more than there are backends with a weight that are no backups; write at most {most}"
    )]
    MinimumBeyondBackends { minimum: u32, most: usize },
    #[error("every backend has weight 0, so none takes traffic; write a weight of 1 or more for one")]
    NoWeight,
    #[error(
        "backend {backend} is {}, the service's address {}; write backends of the service's family, or mode = \"tunnel\"",
        family(*backend),
        family(*service)
    )]
    OtherFamily { backend: IpAddr, service: IpAddr },
    #[error(
        "backend port {backend} is not the service's port {service}, and {mode} rewrites no ports; write {service}, or mode = \"nat\""
    )]
    OtherPort { backend: u16, service: u16, mode: Mode },
    #[error(
        "the service is on any port, and a backend gets its packets at the port that they are sent to; leave `port` out"
    )]
    BackendPortOfAny,
    #[error(
        "backend {address} port {port} is there twice, first at line {line}; write it once, with the sum of the weights"
    )]
    DuplicateBackend { address: IpAddr, port: u16, line: usize },
    #[error(
        "backend {address} port {port} is also behind service `{other}`, at line {line}, and nat could not tell their replies \
         apart; give it another port or address in one of them"
    )]
    SharedNatBackend { address: IpAddr, port: u16, other: String, line: usize },
    #[error(
        "backend {address} is also behind service `{other}`, at line {line}, one of the two services is on any port, and nat could \
         not tell their replies apart; give it another address in one of them"
    )]
    SharedNatAddress { address: IpAddr, other: String, line: usize },
    #[error(
        "mode \"tunnel\" needs addresses for outer headers to come from; write [tunnel] with {key} = \"{example}\""
    )]
    NoTunnel { key: &'static str, example: &'static str },
    #[error(
        "tunnel backend {backend} needs {} addresses for outer headers to come from; write {key} = \"{example}\" in [tunnel]",
        family(*backend)
    )]
    NoTunnelSource { backend: IpAddr, key: &'static str, example: &'static str },

    // DNS.
    #[error("no address to answer at; write listen = [\"192.0.2.53\"] with addresses of this machine")]
    NoListen,
    #[error("listen address {address} is there twice; write it once")]
    DuplicateListen { address: IpAddr },
    #[error("the name is empty; write one such as www.example.com")]
    EmptyName,
    #[error("wildcards are not supported; write each name")]
    Wildcard,
    #[error("an empty label, two dots in a row or one at the start; write names such as www.example.com")]
    EmptyLabel,
    #[error("label `{label}` has {} bytes, 63 are the most; write a shorter one", label.len())]
    LongLabel { label: String },
    #[error("the name has {length} bytes on the wire, 255 are the most; write a shorter one")]
    LongName { length: usize },
    #[error(
        "`{character}` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--..."
    )]
    NameCharacter { character: char },
    #[error("the name is there twice, first at line {line}; write it once, with all its addresses")]
    DuplicateName { line: usize },
    #[error("no record; write addresses = [\"192.0.2.10\"], or `cname`, `mx`, `txt` or `srv`")]
    NoRecords,
    #[error("address {address} is there twice; write it once")]
    DuplicateAddress { address: IpAddr },
    #[error("{count} {family} addresses are more than one answer takes; write at most {most}")]
    TooManyAddresses { family: &'static str, count: usize, most: usize },
    #[error("`{key}` is about addresses, of which there are none; leave it out")]
    WithoutAddresses { key: &'static str },
    #[error("`{key}` means something only with policy = {policies}; write that, or leave it out")]
    OtherPolicy { key: &'static str, policies: &'static str },
    #[error("every {family} address has weight 0, so none would be answered; write a weight of 1 or more for one")]
    NoWeightOfFamily { family: &'static str },
    #[error("minimum_healthy {minimum} is more than there are addresses of one family; write at most {most}")]
    MinimumBeyondAddresses { minimum: u32, most: usize },
    #[error("`fallback` means something only with below_minimum = \"fallback\"; write that, or leave it out")]
    UnusedFallback,
    #[error("no `fallback`; write fallback = [\"192.0.2.99\"], what is answered below the minimum")]
    NoFallback,
    #[error("a name with `cname` stands for another one and has nothing else; leave out {others}")]
    CnameNotAlone { others: String },
    #[error("{kind} `{value}` can't be read; write one such as {example}")]
    NotOfType { kind: &'static str, value: String, example: &'static str },
    #[error("{kind} `{value}` is there twice; write it once")]
    DuplicateRecord { kind: &'static str, value: String },
    #[error("the {kind} records have {length} bytes together, {most} fit in one answer; write fewer")]
    LargeSet { kind: &'static str, length: usize, most: usize },
    #[error(
        "the domain's own name has a CNAME, beside which nothing may be, not even the domain (RFC 1034 section 3.6.2); write addresses for the name instead"
    )]
    AliasOfDomain,
    #[error("the domain is there twice, first at line {line}; write it once")]
    DuplicateDomain { line: usize },
    #[error("{what} is not 32 hexadecimal digits; write the output of `openssl rand -hex 16`")]
    CookieSecret { what: &'static str },
    #[error("both `cookie_secret` and `cookie_secret_file`; write one of them")]
    TwoCookieSecrets,

    // Files of records.
    #[error("cannot read {}: {error}; write the path of a file, from the config's folder", path.display())]
    RecordsFile { path: PathBuf, error: io::Error },
    #[error("not a record; write NAME TTL TYPE DATA, such as `www.example.com 300 A 192.0.2.1`")]
    NotARecord,
    #[error("TTL `{word}` is not 0 to 2147483647 seconds; write a number, such as 300")]
    NotATtl { word: String },
    #[error("type `{word}` is unknown here; write A, AAAA, CNAME, MX, TXT or SRV")]
    UnknownType { word: String },
    #[error("the name has a [[dns.name]] of its own, at line {line} of the config; write all its records there")]
    NameInConfig { line: usize },
    #[error("the name's {kind} records have TTL {other} at line {line}; write the same for all of them")]
    OtherTtl { kind: &'static str, other: u32, line: usize },
    #[error("the record is there twice, first at line {line}; write it once")]
    RecordTwice { line: usize },
    #[error("a name with CNAME has no other record, and this one has one at line {line}; write one of them")]
    CnameBeside { line: usize },
    #[error("{count} lines have problems; these are the first {shown}")]
    ManyProblems { count: usize, shown: usize },
}

impl Problem {
    /// From the message of the TOML reader, whose errors have neither variants nor, in case of a secret, discretion: they quote
    /// the whole line.
    pub(super) fn from_toml(message: &str) -> Self {
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let mut quoted = rest.split('`').step_by(2).map(str::to_owned);
            return Self::UnknownKey { key: quoted.next().unwrap_or_default(), known: quoted.collect() };
        }
        let type_error = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "));
        let Some((found, expected)) = type_error else {
            return Self::Syntax(message.into());
        };
        let expected = match expected {
            "i64" => "a whole number",
            "a string" => "a string in quotes",
            "a sequence" => "a list in brackets, [...] or [[...]],",
            "a map" => "a table",
            "a boolean" => "true or false",
            other => other,
        };
        let found = match found {
            "map" => "a table",
            "sequence" => "a list",
            other => other,
        };
        Self::WrongType { found: found.into(), expected: expected.into() }
    }
}

fn list(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn checks(known: &[String]) -> String {
    if known.is_empty() {
        "write one, [check.<name>]".into()
    } else {
        format!("those that are there are {}", list(known))
    }
}

fn more_slots(enough: Option<u32>) -> String {
    match enough {
        Some(enough) => format!("write slots = {enough} or more, or weights that differ less"),
        None => "write weights that differ less, or fewer backends".into(),
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
