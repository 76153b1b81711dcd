//! The API over TCP: for who has the token, and behind TLS but on the loopback.

use super::{Kind, Refusal};
use crate::model::intent::Api;
use axum::{
    Router,
    extract::Request,
    http::header::{AUTHORIZATION, WWW_AUTHENTICATE},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use hyper::{
    rt::{Read, Write},
    server::conn::http1,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once, over all addresses: operators and collectors of metrics are few.
const CONNECTIONS: usize = 64;
/// For a handshake, and for the head of a request: who has no token gets no further.
const PATIENCE: Duration = Duration::from_secs(10);
/// 128 bits in hexadecimal digits.
const SHORTEST_TOKEN: usize = 32;

/// Why the API can't be answered over TCP.
#[derive(Debug, Error)]
pub enum TcpError {
    /// The token's file can't be read.
    #[error("cannot read token_file {}; make it with `openssl rand -hex 32`, for its owner alone", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Others may read it.
    #[error("token_file {} is for others too (mode {mode:o}); `chmod 600` makes it its owner's alone", path.display())]
    OpenToken {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It can be guessed.
    #[error("the token in {} has {length} characters, {SHORTEST_TOKEN} are the least; write the output of `openssl rand -hex 32`", path.display())]
    ShortToken {
        /// The file.
        path: PathBuf,
        /// How long it is.
        length: usize,
    },
    /// A file in PEM can't be read.
    #[error("cannot read {what} {}: {reason}; write it in PEM", path.display())]
    Pem {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("certificate and key of the API can't be used: {0}")]
    Tls(rustls::Error),
    /// An address can't be had.
    #[error(
        "cannot answer the API at {address}: {source}; choose an address of this machine and a port that nobody has"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
}

impl TcpError {
    /// The exit code of the agent.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Bind { .. }) { 3 } else { 2 }
    }
}

/// What the files hold by which clients and the API know each other.
#[derive(Clone)]
pub struct Credentials {
    token: Token,
    tls: Option<TlsAcceptor>,
}

impl Credentials {
    /// Reads the files.
    pub fn read(api: &Api) -> Result<Self, TcpError> {
        let token = Token::read(&api.token)?;
        let tls = api.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        Ok(Self { token, tls })
    }
}

/// The credentials in use; what is sent holds from the next request and the next connection on.
pub type InUse = watch::Sender<Credentials>;

/// The API's sockets.
pub struct Tcp {
    listeners: Vec<TcpListener>,
    credentials: watch::Receiver<Credentials>,
}

impl Tcp {
    /// Opens the sockets, and reads what they need.
    pub async fn bind(api: &Api) -> Result<(Self, InUse), TcpError> {
        let (in_use, credentials) = watch::channel(Credentials::read(api)?);
        let mut listeners = Vec::new();
        for address in &api.listen {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.map_err(|source| TcpError::Bind { address: *address, source })?);
        }
        Ok((Self { listeners, credentials }, in_use))
    }

    /// Answers requests for as long as it is waited for.
    pub async fn serve(self, router: Router) {
        let Self { listeners, credentials } = self;
        let known = credentials.clone();
        let router = router.layer(from_fn(move |request: Request, next: Next| {
            let is_allowed = known.borrow().token.is_of(&request);
            async move { if is_allowed { next.run(request).await } else { unauthorized() } }
        }));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(listener, credentials.clone(), router.clone(), Arc::clone(&places)));
        }
        while accepting.join_next().await.is_some() {}
    }
}

async fn accept(
    listener: TcpListener,
    credentials: watch::Receiver<Credentials>,
    router: Router,
    places: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the API can't accept a connection");
                // Mostly for want of file descriptors, which takes its time.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, router) = (credentials.borrow().tls.clone(), router.clone());
        connections.spawn(async move {
            let _place = place;
            connection(stream, tls, router).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    match tls {
        None => serve(TokioIo::new(stream), router).await,
        Some(tls) => {
            // Who does not speak TLS is nobody's concern.
            if let Ok(Ok(stream)) = timeout(PATIENCE, tls.accept(stream)).await {
                serve(TokioIo::new(stream), router).await;
            }
        }
    }
}

async fn serve(stream: impl Read + Write + Unpin + Send + 'static, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A connection that breaks off is its client's concern.
    let _ = builder.serve_connection(stream, TowerToHyperService::new(router)).await;
}

fn unauthorized() -> Response {
    let error = "the request has not the API's token; send `Authorization: Bearer TOKEN` with what is in `token_file`";
    let mut response = Refusal::new(Kind::Unauthorized, error).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
    response
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TcpError> {
    let failed = |what, path: &Path, reason: String| TcpError::Pem { what, path: path.into(), reason };
    let certificates = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| failed("certificate", certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("key", key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(TcpError::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The token, as its hash: what is compared then says nothing by how long that takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads it from a file that is its owner's alone.
    pub fn read(path: &Path) -> Result<Self, TcpError> {
        let failed = |source| TcpError::Token { path: path.into(), source };
        let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TcpError::OpenToken { path: path.into(), mode });
        }
        let text = fs::read(path).map_err(failed)?;
        let token = text.trim_ascii();
        if token.len() < SHORTEST_TOKEN {
            return Err(TcpError::ShortToken { path: path.into(), length: token.len() });
        }
        Ok(Self::hash(token))
    }

    fn hash(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether a request has it.
    fn is_of(&self, request: &Request) -> bool {
        let header = request.headers().get(AUTHORIZATION).map(|header| header.as_bytes());
        let (scheme, token) = header.and_then(|header| header.split_at_checked(7)).unwrap_or_default();
        let Self(sent) = Self::hash(token.trim_ascii());
        let difference = sent.iter().zip(self.0).fold(0, |all, (one, other)| all | (one ^ other));
        scheme.eq_ignore_ascii_case(b"bearer ") && difference == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn a_request_needs_the_very_token() {
        let token = Token::hash(b"0123456789abcdef0123456789abcdef");
        let is_of = |header: Option<&str>| {
            let mut request = Request::builder();
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            token.is_of(&request.body(Body::empty()).unwrap())
        };
        for right in ["Bearer 0123456789abcdef0123456789abcdef", "bearer 0123456789abcdef0123456789abcdef "] {
            assert!(is_of(Some(right)), "{right}");
        }
        for wrong in [
            "Bearer 0123456789abcdef0123456789abcdeF",
            "Bearer 0123456789abcdef0123456789abcde",
            "Bearer 0123456789abcdef0123456789abcdef0",
            "Basic 0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef",
            "Bearer",
            "Bearer ",
            "",
        ] {
            assert!(!is_of(Some(wrong)), "{wrong}");
        }
        assert!(!is_of(None));
    }
}
