//! The file of vectors, as far as it is read here.

use super::flow::Flow;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, str::FromStr};

/// What the file says that it is.
const FORMAT: &str = "l4-golden-vectors/1";

/// The whole file.
#[derive(Deserialize)]
pub struct File {
    format: String,
    /// What holds for all suites.
    pub common: Common,
    configurations: BTreeMap<String, Configuration>,
    /// The vectors, in the order to run them.
    pub vectors: Vec<Vector>,
}

/// What holds for all suites.
#[derive(Deserialize)]
pub struct Common {
    /// MAC address of the next hop.
    pub gateway_mac: Mac,
    /// MAC address of the balancer.
    pub input_dst_mac: Mac,
    /// A longer frame is not sent to a real, whatever an outer header adds to it.
    pub max_frame_bytes: u16,
    ipip_outer_src_v4: String,
    ipip_outer_src_v6: String,
}

impl Common {
    /// The networks of outer sources, IPv4 first. Words follow them.
    pub fn sources(&self) -> [&str; 2] {
        [&self.ipip_outer_src_v4, &self.ipip_outer_src_v6]
            .map(|text| text.split_whitespace().next().unwrap_or_default())
    }
}

/// How a suite's balancer is configured. What this project has no word for stays in `more`.
#[derive(Clone, Deserialize)]
pub struct Configuration {
    /// Outer headers; none means that the base says it.
    pub encap: Option<String>,
    base: Option<String>,
    /// Where clients connect to.
    #[serde(default)]
    pub vips: Vec<Vip>,
    /// Reals that are down, by `address:port/protocol` of their VIP.
    #[serde(default)]
    pub down_reals: BTreeMap<String, Vec<IpAddr>>,
    /// All other keys.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// An address, port and protocol that clients connect to.
#[derive(Clone, Deserialize)]
pub struct Vip {
    /// The address; with a length behind it a network.
    pub address: String,
    /// The port; 0 is any.
    pub port: u16,
    /// `tcp` or `udp`.
    pub proto: String,
    /// Who serves it.
    pub reals: Vec<IpAddr>,
    /// What is special about it.
    pub flags: Vec<String>,
}

/// The VIP that a flow's packets come to: one with the port goes before one on any.
pub fn vip_of<'v>(vips: &'v [Vip], flow: &Flow) -> Option<&'v Vip> {
    let is_there = |vip: &&Vip| vip.address == flow.to.ip().to_string() && vip.proto == flow.protocol;
    let on = |port| vips.iter().filter(is_there).find(|vip| vip.port == port);
    on(flow.to.port()).or_else(|| on(0))
}

/// A frame and what is to come of it.
#[derive(Deserialize)]
pub struct Vector {
    /// What to call it.
    pub id: String,
    /// Names its configuration.
    pub suite: String,
    /// What it tries.
    pub description: String,
    /// Where its program is attached.
    pub hook: String,
    /// The frame that comes in.
    #[serde(rename = "in", deserialize_with = "bytes")]
    pub frame: Vec<u8>,
    /// The frame that is to come out.
    #[serde(deserialize_with = "bytes")]
    pub out: Vec<u8>,
    /// What is to be done with it.
    pub action: Action,
    /// How to compare what comes out.
    pub expect: Expect,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

impl Vector {
    /// Whether it was reproduced where it comes from.
    pub fn is_verified(&self) -> bool {
        !self.more.iter().any(|(key, value)| key.starts_with("verified_on_") && value == false)
    }
}

/// What is done with a frame, by the names of the kernel's `enum xdp_action`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Action {
    /// It goes back out.
    #[serde(rename = "XDP_TX")]
    Transmit,
    /// The stack takes it.
    #[serde(rename = "XDP_PASS")]
    Pass,
    /// It ends here.
    #[serde(rename = "XDP_DROP")]
    Drop,
    /// Of another kind of program.
    #[serde(other)]
    Other,
}

/// How to compare what comes out.
#[derive(Deserialize)]
pub struct Expect {
    /// What kind of frame it is.
    pub kind: Kind,
    /// Its outer header.
    pub encap: Option<String>,
    /// Bytes that differ where slots, hashes or outer sources do: offset and count.
    #[serde(default)]
    pub free_bytes_if_ring_differs: Vec<[usize; 2]>,
    outer_dst_rule: Option<String>,
}

impl Expect {
    /// Whether the packet itself says which real it goes to.
    pub fn names_real(&self) -> bool {
        self.outer_dst_rule.as_deref() == Some("exact")
    }
}

/// What kind of frame is to come out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The one that came in.
    Unmodified,
    /// The one that came in, behind an outer header.
    Encap,
    /// One for the sender.
    Reply,
    /// What was in the one that came in.
    DecapThenPass,
    /// Something that this project does not do.
    #[serde(other)]
    Other,
}

/// A MAC address.
#[derive(Clone, Copy, Debug)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        Ok(Self(bytes.try_into().ok().context("a MAC address has 6 bytes")?))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bytes = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>();
    bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))
}

impl File {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let file: Self = serde_json::from_str(&text).with_context(|| format!("understanding {}", path.display()))?;
        ensure!(file.format == FORMAT, "{} is of the format {}, not {FORMAT}", path.display(), file.format);
        Ok(file)
    }

    /// The configuration of a suite, with what it takes over from another.
    pub fn configuration(&self, suite: &str) -> Result<Configuration> {
        let Some(mut own) = self.configurations.get(suite).cloned() else {
            bail!("there is no configuration of the suite {suite}");
        };
        // "base plus ..." takes over as well.
        let base = own.base.as_deref().and_then(|base| base.split_whitespace().next());
        if let Some(base) = base.and_then(|base| self.configurations.get(base)) {
            own.encap = own.encap.or_else(|| base.encap.clone());
            own.vips.extend(base.vips.iter().cloned());
            own.down_reals.extend(base.down_reals.clone());
            for (key, value) in &base.more {
                own.more.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(own)
    }
}
