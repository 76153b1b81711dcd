//! A prefix as operators write it: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use thiserror::Error;

/// A prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u32,
}

/// What is wrong with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum PrefixError {
    #[error("`{text}` is not an IP address; write a prefix such as 192.0.2.0/24")]
    Address { text: String },
    #[error("`{text}` is not a length of {address}; write 0 to {most}")]
    Length { text: String, address: IpAddr, most: u32 },
    #[error("{address} does not end where the {bits} bits do; write {network}/{bits}")]
    Rest { address: IpAddr, bits: u32, network: IpAddr },
}

impl Prefix {
    /// Its address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && network(address, self.bits) == self.address
    }

    /// Its length.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address = address.parse().map_err(|_| PrefixError::Address { text: address.into() })?;
        let most = if IpAddr::is_ipv4(&address) { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = match length {
            None => most,
            Some(length) => length.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| PrefixError::Length {
                text: length.into(),
                address,
                most,
            })?,
        };
        let network = network(address, bits);
        if network == address { Ok(Self { address, bits }) } else { Err(PrefixError::Rest { address, bits, network }) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

/// The address with zeros behind its first bits.
fn network(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from(address.to_bits() & u32::MAX.checked_shl(Ipv4Addr::BITS - bits).unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from(address.to_bits() & u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reads_as_it_is_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "fd00::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for (address, prefix) in [("192.0.2.1", "192.0.2.1/32"), ("fd00::1", "fd00::1/128")] {
            assert_eq!(address.parse::<Prefix>().unwrap().to_string(), prefix);
        }
    }

    #[test]
    fn a_prefix_contains_what_begins_like_it() {
        for (prefix, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "ffff::1", "192.0.2.1"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert!(prefix.contains(inside.parse().unwrap()), "{prefix}");
            assert!(!prefix.contains(outside.parse().unwrap()), "{prefix}");
        }
    }

    #[test]
    fn what_is_none_is_told_with_a_cure() {
        for (text, said) in [
            ("10.0.0/8", "`10.0.0` is not an IP address; write a prefix such as 192.0.2.0/24"),
            ("", "`` is not an IP address; write a prefix such as 192.0.2.0/24"),
            ("10.0.0.0/33", "`33` is not a length of 10.0.0.0; write 0 to 32"),
            ("fd00::/129", "`129` is not a length of fd00::; write 0 to 128"),
            ("10.0.0.0/", "`` is not a length of 10.0.0.0; write 0 to 32"),
            ("10.0.0.0/-1", "`-1` is not a length of 10.0.0.0; write 0 to 32"),
            ("10.0.0.1/8", "10.0.0.1 does not end where the 8 bits do; write 10.0.0.0/8"),
            ("fd00::1/64", "fd00::1 does not end where the 64 bits do; write fd00::/64"),
            ("1.2.3.4/0", "1.2.3.4 does not end where the 0 bits do; write 0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), said, "{text}");
        }
    }
}
