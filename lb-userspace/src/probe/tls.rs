//! Connections by TLS, and what there is to say of the certificates.

use super::outcome::Outcome;
use crate::model::{
    certificate::Certificate,
    health::Failure,
    intent::{Authorities, Tls},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_cert::der::Decode as _;

/// More than this are those of configs that are long gone.
const MOST_CLIENTS: usize = 64;

/// One client for all checks that trust the same authorities: those of a system are many.
#[derive(Debug, Default)]
pub struct Clients(Mutex<BTreeMap<Authorities, Arc<ClientConfig>>>);

impl Clients {
    fn of(&self, authorities: &Authorities) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(authorities) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(client(authorities)?);
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.insert(authorities.clone(), Arc::clone(&client));
        Ok(client)
    }
}

fn client(authorities: &Authorities) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::System => {
            let read = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(read.certs);
        }
        Authorities::These(all) => {
            roots.add_parsable_certificates(all.iter().map(|der| CertificateDer::from(der.as_slice())));
        }
        Authorities::Anyone => (),
    }
    let mut config = match authorities {
        Authorities::Anyone => {
            let verifier = Arc::new(Anyone(provider));
            config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        _ => config.with_root_certificates(roots).with_no_client_auth(),
    };
    // A resumed session shows no certificate: one that has expired since would not be seen.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Begins TLS, and says what the server's certificate is like.
pub async fn connect(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Tls,
    clients: &Clients,
) -> Result<(TlsStream<TcpStream>, Option<Certificate>), Outcome> {
    let name = tls.name.clone().unwrap_or_else(|| address.ip().to_string());
    let of_tls = |error: rustls::Error| {
        let failure = match error {
            rustls::Error::InvalidCertificate(_) => Failure::Certificate,
            _ => Failure::Tls,
        };
        Outcome::from(failure).with_output(error.to_string().as_bytes())
    };
    let server = ServerName::try_from(name.clone()).map_err(|_| Outcome::from(Failure::Tls))?;
    let client = clients.of(&tls.authorities).map_err(of_tls)?;
    let begun = TlsConnector::from(client).connect(server.clone(), stream).await;
    let stream = begun.map_err(|error: io::Error| match error.downcast::<rustls::Error>() {
        Ok(error) => of_tls(error),
        Err(error) => error.into(),
    })?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let certificate = shown.map(|der| read(der, &server, name));
    Ok((stream, certificate))
}

/// Whom a certificate covers, and until when.
fn read(der: &CertificateDer<'_>, server: &ServerName<'_>, name: String) -> Certificate {
    let covers = ParsedCertificate::try_from(der).is_ok_and(|parsed| verify_server_name(&parsed, server).is_ok());
    let parsed = x509_cert::Certificate::from_der(der);
    let expires = parsed.map(|parsed| parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs());
    Certificate { name, covers, expires: expires.ok() }
}

/// Takes any certificate, as long as the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
