//! Where the API is answered over TCP, and to whom.

use super::{
    Api,
    part::{Part, Problems},
};
use crate::config::{Config, Place, Problem};
use std::{collections::BTreeSet, net::SocketAddr};
use toml::Spanned;

/// Reads it: none if the config has none; nothing if something is wrong with it.
pub(super) fn read(config: &Config, problems: &mut Problems<'_>) -> Option<Option<Api>> {
    let Some(spanned) = &config.file().api else { return Some(None) };
    let written = spanned.get_ref();
    let mut part = problems.part(Place::Api, Some(spanned.span()));
    let mut seen = BTreeSet::new();
    let listen: Vec<_> = written.listen.iter().map(|written| address(written, &mut seen, &mut part)).collect();
    if listen.is_empty() {
        part.report_here(Problem::Missing { key: "listen", cure: "listen = [\"127.0.0.1:8080\"]" });
    }
    let token =
        part.required("token_file", &written.token_file, "token_file = \"...\", which `openssl rand -hex 32` makes");
    let tls = match (&written.certificate, &written.key) {
        (Some(certificate), Some(key)) => Some((config.beside(certificate), config.beside(key))),
        (Some(one), None) | (None, Some(one)) => {
            part.report(one, Problem::HalfOfTls);
            return None;
        }
        (None, None) => {
            // Who sees a token has it.
            let open = written.listen.iter().zip(&listen);
            for (written, address) in
                open.filter(|(_, address)| address.is_some_and(|address| !address.ip().is_loopback()))
            {
                let address = address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
                part.report(written, Problem::ClearToken { address });
            }
            None
        }
    };
    let listen: Option<Vec<_>> = listen.into_iter().collect();
    Some(Some(Api { listen: listen?, token: config.beside(token?), tls }))
}

fn address(written: &Spanned<String>, seen: &mut BTreeSet<SocketAddr>, part: &mut Part<'_, '_>) -> Option<SocketAddr> {
    let value = written.get_ref();
    let address = value.parse::<SocketAddr>().ok().filter(|address| address.port() > 0);
    let Some(address) = address else {
        part.report(written, Problem::NotASocket { value: value.clone() });
        return None;
    };
    if !seen.insert(address) {
        part.report(written, Problem::DuplicateSocket { address });
        return None;
    }
    Some(address)
}
