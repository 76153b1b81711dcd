//! What there is to say of a server's certificate.

use serde::{Deserialize, Serialize};

/// A certificate as an operator wants to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The name that the server was asked for.
    pub name: String,
    /// Whether the certificate is good for it.
    pub covers: bool,
    /// When it expires, in seconds since 1970, if that can be read.
    pub expires: Option<u64>,
}

impl Certificate {
    /// In words, at `now` in seconds since 1970.
    pub fn told(&self, now: u64) -> String {
        let covers = if self.covers { "covers" } else { "does not cover" };
        let days = |seconds: u64| match seconds / 86_400 {
            0 => format!("{} h", seconds / 3_600),
            days => format!("{days} d"),
        };
        let expires = match self.expires {
            Some(expires) if expires <= now => format!("expired {} ago", days(now - expires)),
            Some(expires) => format!("expires in {}", days(expires - now)),
            None => "does not say when it expires".into(),
        };
        format!("certificate {covers} {}, {expires}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let certificate = |covers, expires| Certificate { name: "a.example".into(), covers, expires };
        let cases = [
            (certificate(true, Some(10 * 86_400)), "certificate covers a.example, expires in 9 d"),
            (certificate(true, Some(90_000)), "certificate covers a.example, expires in 1 h"),
            (certificate(false, Some(86_400)), "certificate does not cover a.example, expired 0 h ago"),
            (certificate(true, None), "certificate covers a.example, does not say when it expires"),
        ];
        for (certificate, expected) in cases {
            assert_eq!(certificate.told(86_400), expected);
        }
    }
}
