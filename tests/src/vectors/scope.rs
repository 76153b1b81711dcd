//! Which vectors say something about this project, and why the others do not.

use super::{
    file::{Configuration, Kind, Vector, vip_of},
    flow::Flow,
};

/// What a VIP can be besides plain, that this project has as well.
const FLAGS: [&str; 2] = ["any_port", "udp_flow_migration"];
/// What a flag that this project does not have stands for.
const FOREIGN_FLAGS: [(&str, &str); 2] = [
    ("quic_cid_routing", "routing by QUIC connection ids"),
    ("hash_dst_port_only", "hashing by the destination's port alone"),
];
/// What a configuration has that this project does not, by the key that says so.
const FOREIGN_KEYS: [(&str, &str); 4] = [
    ("src_rules", "routing by the source's network"),
    ("inline_decap_dst", "decapsulation before balancing"),
    ("egress_decap_dst", "decapsulation before balancing"),
    ("fwmark_to_real", "programs of another kind than XDP"),
];

/// Why a vector is not for this project, if it is not.
pub fn foreign(vector: &Vector, configuration: &Configuration) -> Option<&'static str> {
    let foreign_key = FOREIGN_KEYS.iter().find(|(key, _)| configuration.more.contains_key(*key));
    if let Some((_, reason)) = foreign_key {
        return Some(reason);
    }
    if vector.hook != "xdp" {
        return Some("programs of another kind than XDP");
    }
    if !vector.is_verified() {
        return Some("not reproduced where they come from");
    }
    if configuration.vips.iter().any(|vip| vip.address.contains('/')) {
        return Some("VIPs that are networks");
    }
    let of_gue = vector.expect.encap.as_deref().is_some_and(|encap| encap != "ipip");
    let in_gue = configuration.more.contains_key("gue_udp_dst_port") && vector.expect.kind == Kind::DecapThenPass;
    if of_gue || in_gue {
        return Some("GUE outer headers");
    }
    if vector.expect.kind == Kind::Other {
        return Some("results that this project has no equal of");
    }
    if let Some(reason) = foreign_flag(vector, configuration) {
        return Some(reason);
    }
    vector.expect.names_real().then_some("server ids in TCP options")
}

/// What is special about the VIP that a frame is for, or that it is about.
fn foreign_flag(vector: &Vector, configuration: &Configuration) -> Option<&'static str> {
    let vip = vip_of(&configuration.vips, &Flow::of(&vector.frame)?)?;
    let flag = vip.flags.iter().find(|flag| !FLAGS.contains(&flag.as_str()))?;
    let known = FOREIGN_FLAGS.iter().find(|(name, _)| name == flag);
    Some(known.map_or("VIPs with flags that this project does not know", |(_, reason)| reason))
}
