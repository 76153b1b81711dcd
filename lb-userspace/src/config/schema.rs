//! The keys of the config, each with its help. Nothing is required and no value judged here, so that all that is wrong with a
//! config can be said at once.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    path::PathBuf,
};
use toml::Spanned;

/// A value with its place in the text.
pub type Written<T> = Option<Spanned<T>>;
/// A list of values, each with its place in the text.
pub type List<T> = Vec<Spanned<T>>;

/// The whole config.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Names of the interfaces that the program is attached to; at least one.
    #[serde(default)]
    pub interfaces: List<String>,
    /// How it is attached: `native` (in the driver; the default) or `generic` (slow, for drivers without XDP). To
    /// change it, detach (`lb detach`) and start the agent anew.
    pub attach: Written<String>,
    /// What keys the hash of flows: the same on every machine of a fleet, known to nobody else, at least 16 characters. Make one
    /// with `openssl rand -hex 16`. Either this or `secret_file` is required.
    pub secret: Written<Secret>,
    /// A file with the secret, absolute or from the config's folder. A newline at its end is not part of the secret.
    pub secret_file: Written<String>,
    /// Path of the Unix socket where the agent answers the commands; default `/run/lb/lb.sock`.
    pub socket: Written<String>,
    /// Folder on bpffs where maps and links are pinned, so that they outlive the agent; default `/sys/fs/bpf/lb`.
    pub pins: Written<String>,
    /// Folder where the agent keeps what outlives it, such as changes made by command; default what systemd says (`StateDirectory`), or
    /// `/var/lib/lb`. To change it, start the agent anew.
    pub state: Written<String>,
    /// The API over TCP, beside the Unix socket.
    pub api: Written<Table<Api>>,
    /// Health checks by name: `[check.web]`.
    #[serde(default)]
    pub check: BTreeMap<Spanned<String>, Table<Check>>,
    /// Services, each `[[service]]`.
    #[serde(default)]
    pub service: List<Table<Service>>,
    /// DNS.
    pub dns: Written<Table<Dns>>,
    /// Where tunnels to backends come from; required by services in mode `tunnel`.
    pub tunnel: Written<Table<Tunnel>>,
    /// For how long flows are known.
    pub tracking: Written<Table<Tracking>>,
    /// Sizes of the maps.
    pub limits: Written<Table<Limits>>,
    /// Who is asked for the names of backends.
    pub resolver: Written<Table<Resolver>>,
}

/// Who is asked for the names of backends, `[resolver]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolver {
    /// Addresses of resolvers, with a port or without, asked one after another until one answers; default those of `/etc/resolv.conf`.
    #[serde(default)]
    pub nameservers: List<String>,
}

/// The API over TCP, `[api]`, for who sends the token (`Authorization: Bearer`). To change it, start the agent anew; what is in its
/// files is read again by a reload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Addresses with ports, such as `"127.0.0.1:8080"`; at least one.
    #[serde(default)]
    pub listen: List<String>,
    /// A file with the token, at least 32 characters, absolute or from the config's folder; for its owner alone (mode 0600). Required.
    pub token_file: Written<String>,
    /// A file with a certificate, and those between it and a known one, in PEM. Required, with `key`, but on the loopback.
    pub certificate: Written<String>,
    /// A file with the certificate's key in PEM.
    pub key: Written<String>,
}

/// A health check, `[check.<name>]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is done: `tcp` (a connection is opened; the default), `http` or `https` (a page is asked for), `dns` (a question is asked),
    /// `udp` (a datagram is sent; a port that is said to be unreachable is down), `icmp` (an echo request is sent), `agent` (the backend's
    /// agent is asked, HAProxy's agent-check: up, down, drain, maint, ready and the weight in percent).
    pub kind: Written<String>,
    /// The port to connect to; default the backend's. `agent` needs one, `icmp` takes none.
    pub port: Written<i64>,
    /// Where it goes to: `backend` (the backend's own address; the default), or `service`: the service's address, by the way that traffic
    /// takes to the backend in mode `dsr` or `tunnel`, so that one without the address or the tunnel is down.
    pub probe: Written<String>,
    /// Milliseconds from one check to the next; default 1000.
    pub interval_ms: Written<i64>,
    /// Milliseconds after which an answer no longer counts; at most `interval_ms`, default 500 or that if it is less.
    pub timeout_ms: Written<i64>,
    /// Successes in a row that bring a target up; default 2. The first result of all decides at once.
    pub rise: Written<i64>,
    /// Failures in a row that take a target down; default 3.
    pub fall: Written<i64>,
    /// Percent of the interval by which it is longer or shorter by chance, so that many checks do not come at once; default 10.
    pub jitter_percent: Written<i64>,
    /// Seconds for which the weight rises after a target has come back; default 0.
    pub slow_start_seconds: Written<i64>,
    /// So many turns to down within `flap_window_seconds` hold a target down for a while; default: nothing does.
    pub flap_turns: Written<i64>,
    /// See `flap_turns`; default 60.
    pub flap_window_seconds: Written<i64>,
    /// For how long it is held down the first time, and twice as long each further time until it stays up for a whole window; default 30.
    pub flap_hold_seconds: Written<i64>,
    /// The longest that it is held down; default 600.
    pub flap_hold_most_seconds: Written<i64>,
    /// `http`: `GET` (the default) or `HEAD`.
    pub method: Written<String>,
    /// `http`: path and query; default `/`.
    pub path: Written<String>,
    /// `http`: the header `Host`; default the target's address.
    pub host: Written<String>,
    /// `http`: the statuses that are right, `"200"`, `"200-399"` or several of these between commas; default `"200-399"`.
    pub status: Written<String>,
    /// `http`: what has to be in the first 64 KiB of the page, as it is written there.
    pub body: Written<String>,
    /// `https`: the name that the server is asked for and that its certificate has to cover; default `host`, or else the address.
    pub server_name: Written<String>,
    /// `https`: a file (PEM), absolute or from the config's folder, with the authorities that certificates may be signed by; default those
    /// that the system trusts.
    pub ca_file: Written<String>,
    /// `https`: false: any certificate will do; what is wrong with it is only shown. Default true.
    pub verify: Written<bool>,
    /// `dns`: the name that is asked for; required.
    pub name: Written<String>,
    /// `dns`: the type: `A` (the default), `AAAA`, `CNAME`, `MX`, `NS`, `SOA`, `SRV` or `TXT`.
    #[serde(rename = "type")]
    pub record: Written<String>,
    /// `dns`: the response code that is right: `NOERROR` (the default), `NXDOMAIN`, `SERVFAIL` or `REFUSED`.
    pub rcode: Written<String>,
    /// `dns`: an address that has to be among the answers.
    pub address: Written<String>,
    /// `udp`, `agent`: what is sent. Bytes are written as `"hex:00ff"`. Default nothing: an empty datagram, or for `agent` no bytes.
    pub send: Written<String>,
    /// `udp`: what the answer has to begin with, written like `send`; default: silence is right as well.
    pub expect: Written<String>,
    /// `agent`: the least percentage that counts: what says less, 0 too, is taken for that; default 10.
    pub weight_floor_percent: Written<i64>,
    /// `agent`: a percentage counts only if it differs by so much from what holds; default 5.
    pub weight_step_percent: Written<i64>,
}

/// An address, port and protocol that clients connect to, `[[service]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What the service is called; required.
    pub name: Written<String>,
    /// The address that clients connect to, on no interface of this machine; required.
    pub address: Written<String>,
    /// The port that clients connect to, or `"any"`: all ports that no other service has at the address. Required.
    pub port: Written<Port>,
    /// `tcp` (the default) or `udp`.
    pub protocol: Written<String>,
    /// How packets reach the backends; required. `dsr`: only the MAC address changes, so the backend is on the same link, has the
    /// service's address on its loopback, and answers the client itself. `nat`: address and port are rewritten, so the
    /// backend's way back has to lead through this machine. `tunnel`: the packet travels behind an outer IP header, so the backend
    /// may be anywhere and of the other family; it takes the header off, has the service's address and answers the client itself.
    pub mode: Written<String>,
    /// Size of the slot table, a prime from 251 to 65537; default about 100 for each backend. Larger tables hold weights more
    /// exactly and move fewer flows on a change, for 8 bytes a slot. It is chosen when the table is made: a table in use keeps its
    /// size until `lb detach`, since another one would move flows.
    pub slots: Written<i64>,
    /// Which flows a changed slot's UDP packets belong to, if nothing is known of them: `follow` (who had the slot before; only a
    /// packet that begins a QUIC connection begins a flow; the default) or `move` (who has it now). Only for udp services.
    pub udp: Written<String>,
    /// Whether echo requests to the address are answered; default true. Services at one address have to agree.
    pub echo: Written<bool>,
    /// Who answers ARP and neighbour solicitations for the address: `link` (this machine; the default) or `routed` (nobody:
    /// the address is routed to this machine).
    pub claim: Written<String>,
    /// The name of the backends' health check; default a TCP check of the backend's port. UDP services and those on any port need
    /// one with a port.
    pub check: Written<String>,
    /// The name of a check of the kind `agent` that is asked besides `check`: by what it says a backend has a part of its weight, takes no
    /// new flows, or none. That it can't be reached changes nothing.
    pub agent: Written<String>,
    /// How many backends other than backups have to be up; default 1. If fewer are, those with `backup` take flows too.
    pub minimum_healthy: Written<i64>,
    /// What becomes of the flows if fewer are up, backups included: `healthy` (those that are up take all; the default) or `fail-open` (all
    /// backends take flows as if they were up).
    pub below_minimum: Written<String>,
    /// The backends, each `[[service.backend]]`; at least one, here or in `backends_file`.
    #[serde(default)]
    pub backend: List<Table<Backend>>,
    /// A file with more of them, absolute or from the config's folder, in the JSON of Prometheus' `file_sd`:
    /// `[{"targets": ["10.0.0.11:8080"], "labels": {"weight": "2"}}]`. The labels `weight` and `backup` mean the same as the keys. The file is
    /// watched: it is read again when it has changed. If it is wrong then, what it has listed before holds, and everything else goes on.
    pub backends_file: Written<String>,
    /// Where that file is, once it is read.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// A server behind a service, `[[service.backend]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its own address, of the same family as the service's unless the mode is `tunnel`; this, `host` or `srv` is required.
    pub address: Written<String>,
    /// Its port; default the service's, and never another one unless the mode is `nat`. Backends of a service on any port have none.
    pub port: Written<i64>,
    /// Its share of the service's flows, in proportion to the other backends' weights; default 1. 0: it takes no traffic.
    pub weight: Written<i64>,
    /// What it does, whatever its health: `active` (the default), `drain` (it takes no new flows, those that it has stay until they end) or
    /// `disabled` (it takes no traffic, and flows that it has move).
    pub state: Written<String>,
    /// Seconds after which its flows are given up, only with state `drain`; default `drain_seconds` of `[tracking]`.
    pub drain_seconds: Written<i64>,
    /// Whether it takes flows only while fewer than `minimum_healthy` of the others are up; default false.
    pub backup: Written<bool>,
    /// The name of a host in place of the address: each address that DNS has for it is a backend. It is asked again when its TTL has ended,
    /// after 1 second at least and an hour at most; while DNS does not answer, what it said last holds.
    pub host: Written<String>,
    /// A name with SRV records in place of the address, such as `_http._tcp.example.com`: hosts, ports and weights are as these say, and
    /// a higher priority is a backup of the lower ones. Weights are relative within a priority and become 1 to 100. Where the mode
    /// rewrites no ports, servers at others than the service's are passed over.
    pub srv: Written<String>,
    /// Whether it is listed in `backends_file`.
    #[serde(skip)]
    pub is_of_file: bool,
}

/// DNS, `[dns]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Addresses of this machine where questions are answered; at least one.
    #[serde(default)]
    pub listen: List<String>,
    /// The port where they are answered; default 53.
    pub port: Written<i64>,
    /// Seconds for which the kernel sends answers of this config without an agent; default 60. 0: for ever.
    pub lease_seconds: Written<i64>,
    /// What becomes of questions afterwards: `pass` (they pass to the agent's sockets; the default) or `servfail`.
    pub lapse: Written<String>,
    /// The secret of DNS cookies, 32 hexadecimal digits, the same on all servers of an address (RFC 9018); default derived from `secret`.
    pub cookie_secret: Written<Secret>,
    /// A file with that secret, absolute or from the config's folder.
    pub cookie_secret_file: Written<String>,
    /// The secret before a change, whose cookies are still accepted.
    pub cookie_secret_before: Written<Secret>,
    /// How many answers a client gets; default any number.
    pub limit: Written<Table<DnsLimit>>,
    /// The domains that are answered for, each `[[dns.domain]]`.
    #[serde(default)]
    pub domain: List<Table<Domain>>,
    /// The names that are answered for, each `[[dns.name]]`.
    #[serde(default)]
    pub name: List<Table<Name>>,
    /// Files with more of them, each `[[dns.records]]`.
    #[serde(default)]
    pub records: List<Table<Records>>,
}

impl Dns {
    /// The files of records that are named.
    pub fn record_files(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.records.iter().filter_map(|records| records.get_ref().file.as_ref())
    }
}

/// How many answers the clients of one prefix get by UDP, `[dns.limit]`. Who sends a valid cookie is not limited.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsLimit {
    /// Answers in a second; default 500. 0: any number.
    pub responses_per_second: Written<i64>,
    /// Answers at once after a silence; default twice `responses_per_second`.
    pub burst: Written<i64>,
    /// Of so many answers that are too many, one is sent, truncated, so that a client with a forged address among its neighbours can
    /// still ask by TCP; default 2. 0: none.
    pub slip: Written<i64>,
    /// Questions in a second that the kernel has no answer for and hands to the agent; default 200. 0: any number.
    pub misses_per_second: Written<i64>,
    /// Bits of the prefix by which clients are told apart, IPv4; default 24. Names with the policy `sticky` go by it too.
    pub ipv4_prefix: Written<i64>,
    /// The same for IPv6; default 56.
    pub ipv6_prefix: Written<i64>,
}

/// A name that is answered for with all that lies in it, `[[dns.domain]]`: names in it that do not exist are said not to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// The domain's name; required.
    pub name: Written<String>,
    /// Its first name server, for the SOA record; required.
    pub primary: Written<String>,
    /// The mailbox of who is responsible, with a dot for the `@`; default `hostmaster` in the domain.
    pub contact: Written<String>,
    /// Seconds for which resolvers may keep that there is no such name or record; default 60.
    pub negative_ttl_seconds: Written<i64>,
    /// The serial number of the SOA record; default 1.
    pub serial: Written<i64>,
}

/// A name in DNS, `[[dns.name]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// The name; required.
    pub name: Written<String>,
    /// Seconds for which resolvers may keep an answer; default 30.
    pub ttl_seconds: Written<i64>,
    /// The name's addresses, up to 16 of each family: `"192.0.2.1"`, or a table with more about it.
    #[serde(default)]
    pub addresses: List<Address>,
    /// The name of the addresses' health check, which needs a port; default none: the addresses count as up.
    pub check: Written<String>,
    /// How the addresses of a family are answered: `round-robin` (all that are up, each in its turn first; the default), `shuffle` (all, in an
    /// order by chance), `weighted` (one, as often as its weight says), `sticky` (one, the same for a client's prefix for as long as it is
    /// up), `failover` (those of the lowest tier in which enough are up).
    pub policy: Written<String>,
    /// How many addresses of a family have to be up; default 1. A family, or a tier, with fewer needs all of them.
    pub minimum_healthy: Written<i64>,
    /// What is answered if fewer are: `servfail` (ask another server; the default), `nodata` (there is none), `fail-open` (as if all were up)
    /// or `fallback`.
    pub below_minimum: Written<String>,
    /// The addresses that are answered then, up to 16 of each family; required by `below_minimum = "fallback"`.
    #[serde(default)]
    pub fallback: List<String>,
    /// The name that this one stands for; then there is nothing else.
    pub cname: Written<String>,
    /// MX records: `"10 mail.example.com"`.
    #[serde(default)]
    pub mx: List<String>,
    /// TXT records.
    #[serde(default)]
    pub txt: List<String>,
    /// SRV records, with priority, weight, port and target: `"10 60 5060 sip.example.com"`.
    #[serde(default)]
    pub srv: List<String>,
}

/// An address of a name as written: a string, or a table.
#[derive(Debug)]
pub enum Address {
    /// The address alone.
    Plain(String),
    /// With more about it.
    Table(Box<AddressTable>),
}

/// An address of a name with more about it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressTable {
    /// The address; required.
    pub address: Written<String>,
    /// Its share with the policies `weighted` and `sticky`, in proportion to the others'; default 1. 0: it is not answered.
    pub weight: Written<i64>,
    /// Its tier with the policy `failover`; default 1, the first.
    pub tier: Written<i64>,
    /// The name of its health check; default the name's.
    pub check: Written<String>,
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressVisitor)
    }
}

struct AddressVisitor;

impl<'de> Visitor<'de> for AddressVisitor {
    type Value = Address;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an address in quotes or a table")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Address, E> {
        Ok(Address::Plain(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
        AddressTable::deserialize(MapAccessDeserializer::new(map)).map(|table| Address::Table(Box::new(table)))
    }
}

/// A file with names, `[[dns.records]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// The file, absolute or from the config's folder; required. One record a line, `NAME TTL TYPE DATA`, of the types A, AAAA, CNAME, MX, TXT
    /// and SRV: `www.example.com 300 A 192.0.2.1`. Lines that begin with `#` or `;` say nothing. Several records of a name and type are
    /// rotated; there are no checks.
    pub file: Written<String>,
}

/// Where tunnels to backends come from, `[tunnel]`: networks whose addresses stand as senders in outer headers. What of the last 32
/// bits is behind the prefix varies by flow, so that routers and receivers spread flows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// For backends with an IPv4 address: a network such as `10.99.0.0/16`, /8 to /32.
    pub source_ipv4: Written<String>,
    /// For backends with an IPv6 address: a network such as `fd99::/64`, /8 to /128.
    pub source_ipv6: Written<String>,
}

/// For how long flows are known, `[tracking]`. Only flows of slots that have changed are tracked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracking {
    /// Seconds after a change in which a flow that is not known yet stays where it was; default 300. A flow that is silent for
    /// longer may be moved by the change.
    pub adopt_seconds: Written<i64>,
    /// Seconds after which a silent TCP flow is forgotten; default 7440 (RFC 5382).
    pub tcp_idle_seconds: Written<i64>,
    /// Seconds after which a silent UDP flow is forgotten; default 300 (RFC 4787).
    pub udp_idle_seconds: Written<i64>,
    /// Seconds after which the flows of a backend that is drained or removed are given up; default never.
    pub drain_seconds: Written<i64>,
}

/// Sizes of the maps, `[limits]`. To change them, detach (`lb detach`) and start the agent anew.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Services and DNS addresses; default 4096.
    pub services: Written<i64>,
    /// Backends, counted once for each service that they are behind; default 16384. Removed ones count until their flows have ended.
    pub backends: Written<i64>,
    /// Tracked flows; default 131072. When they are more, those that were silent for longest are forgotten.
    pub flows: Written<i64>,
    /// Memory for DNS answers, in megabytes (of 1,048,576 bytes); default 512. It is taken as it is needed.
    pub answers_megabytes: Written<i64>,
}

/// A port as written: a number, or a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// A number, whether or not it is a port.
    Number(i64),
    /// A word, whether or not it means something.
    Word(String),
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a port number or \"any\"")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Port, E> {
        Ok(Port::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Port, E> {
        Ok(Port::Word(word.into()))
    }
}

/// What keys the hash of flows. Nothing shows it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// From its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text.into_bytes())),
            // serde's own error would show the value.
            _ => Err(D::Error::custom("invalid type: another value, expected a string")),
        }
    }
}

/// A table. Without this, serde would take a list for one: `[[dns]]` for `[dns]`.
#[derive(Debug)]
pub struct Table<T>(T);

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Table<T> {
    fn from(written: T) -> Self {
        Self(written)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}
