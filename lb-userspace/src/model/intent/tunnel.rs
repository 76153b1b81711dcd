//! Where tunnels to backends come from.

use super::{
    Tunnel,
    part::{Part, Problems},
};
use crate::config::{
    Place, Problem,
    schema::{self, Written},
};
use lb_common::path::tunnel::Sources;
use std::{net::IpAddr, ops::RangeInclusive};
use toml::Spanned;

/// The key for a family, and what may be written there.
struct Family {
    key: &'static str,
    example: &'static str,
    cure: &'static str,
    is_of: fn(&IpAddr) -> bool,
    prefixes: RangeInclusive<u32>,
}

const IPV4: Family = Family {
    key: "source_ipv4",
    example: "10.99.0.0/16",
    cure: "a network of your own, such as 10.99.0.0/16",
    is_of: IpAddr::is_ipv4,
    prefixes: 8..=32,
};
const IPV6: Family = Family {
    key: "source_ipv6",
    example: "fd99::/64",
    cure: "a network of your own, such as fd99::/64",
    is_of: IpAddr::is_ipv6,
    prefixes: 8..=128,
};

/// Reads the sources. None in place of those that something is wrong with.
pub(super) fn read(file: &schema::File, problems: &mut Problems<'_>) -> Tunnel {
    let Some(spanned) = &file.tunnel else {
        return Tunnel::default();
    };
    let written = spanned.get_ref();
    let mut part = problems.part(Place::Tunnel, Some(spanned.span()));
    let mut sources = |family: &Family, written: &Written<String>| {
        let (address, prefix) = network(family, written.as_ref()?, &mut part)?;
        Some(Sources::new(address, prefix))
    };
    Tunnel { ipv4: sources(&IPV4, &written.source_ipv4), ipv6: sources(&IPV6, &written.source_ipv6) }
}

fn network(family: &Family, written: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<(IpAddr, u8)> {
    let (what, value) = (family.key, written.get_ref().clone());
    let parsed =
        value.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
    let Some((address, prefix)) = parsed.filter(|(address, _): &(IpAddr, u32)| (family.is_of)(address)) else {
        part.report(written, Problem::NotANetwork { what, value, example: family.example });
        return None;
    };
    if !family.prefixes.contains(&prefix) {
        let (least, most) = family.prefixes.clone().into_inner();
        part.report(written, Problem::PrefixLength { what, prefix, least, most });
        return None;
    }
    let network = network_of(address, prefix);
    if network != address {
        part.report(written, Problem::BitsBehindPrefix { what, value, network, prefix });
        return None;
    }
    part.usable_network(what, written, address, family.cure)?;
    Some((address, u8::try_from(prefix).ok()?))
}

fn network_of(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0)).into())
        }
    }
}

/// Reports what the backends of a service in mode `tunnel` miss, each thing once. Each backend is told by its address.
pub(super) fn check<'w>(
    file: &schema::File,
    mode: &Spanned<String>,
    backends: impl Iterator<Item = (IpAddr, &'w Spanned<String>)> + Clone,
    part: &mut Part<'_, '_>,
) {
    for Family { key, example, is_of, .. } in [IPV4, IPV6] {
        let Some((backend, address)) = backends.clone().find(|(backend, _)| is_of(backend)) else {
            continue;
        };
        let Some(written) = &file.tunnel else {
            // Once for both families.
            return part.report(mode, Problem::NoTunnel { key, example });
        };
        let schema::Tunnel { source_ipv4, source_ipv6 } = &**written.get_ref();
        if (if backend.is_ipv4() { source_ipv4 } else { source_ipv6 }).is_none() {
            part.report(address, Problem::NoTunnelSource { backend, key, example });
        }
    }
}
