//! Probes of servers on the loopback.

use super::{CONCURRENT, Outcome, Probed, Prober, Sockets};
use crate::model::{
    health::Failure,
    intent::{AgentCheck, Authorities, Check, Datagram, Http, Kind, Lookup, Target, Tls},
    load::{Said, Wish},
};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record},
    serialize::binary::BinDecodable as _,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

fn check(kind: Kind) -> Check {
    // What has to be waited for is short; what has to come has time, also on a busy machine.
    Check { interval: Duration::from_secs(10), timeout: Duration::from_secs(10), kind, ..Check::default() }
}

fn prober() -> (Arc<Prober>, mpsc::Receiver<Probed>) {
    let (results, probed) = mpsc::channel(CONCURRENT);
    (Prober::new(Sockets::default(), results), probed)
}

async fn once(address: SocketAddr, check: Check) -> Outcome {
    prober().0.once(&Target { address, check: Arc::new(check), via: None }).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that says this to each connection, behind what is asked if anything is, and ends it.
async fn server(says: impl Into<Vec<u8>>, is_asked: bool) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let (listener, address) = listener().await;
    let says = says.into();
    let serve = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4_096];
        let length = if is_asked { stream.read(&mut asked).await.unwrap() } else { 0 };
        stream.write_all(&says).await.unwrap();
        // The answer has been read when the other side ends the connection.
        let _ = stream.read(&mut [0]).await;
        asked.truncate(length);
        asked
    };
    (address, tokio::spawn(serve))
}

/// A port that nobody listens at.
async fn closed() -> SocketAddr {
    listener().await.1
}

/// The result, and what is shown of the answer.
fn told(outcome: &Outcome) -> (Result<(), Failure>, &str) {
    (outcome.result, outcome.output.as_deref().unwrap_or_default())
}

fn page() -> Http {
    Http { tls: None, head: false, path: "/".into(), host: None, status: vec![(200, 399)], body: None }
}

#[tokio::test]
async fn a_connection() {
    let (_listener, open) = listener().await;
    assert_eq!(once(open, check(Kind::Tcp)).await.result, Ok(()));
    assert_eq!(once(closed().await, check(Kind::Tcp)).await.result, Err(Failure::Refused));
}

#[tokio::test]
async fn pages_and_their_status() {
    let http = |status, head, host: Option<&str>| Http {
        status,
        head,
        host: host.map(Into::into),
        path: "/up?a=b".into(),
        ..page()
    };
    let says = "HTTP/1.1 503 Overloaded\r\ncontent-length: 0\r\n\r\n";
    let (address, server_end) = server(says, true).await;
    let outcome = once(address, check(Kind::Http(http(vec![(200, 399)], false, Some("www.example.com"))))).await;
    assert_eq!(told(&outcome), (Err(Failure::Status(503)), "503 Service Unavailable"));
    let asked = String::from_utf8(server_end.await.unwrap()).unwrap().to_lowercase();
    assert!(asked.starts_with("get /up?a=b http/1.1\r\nhost: www.example.com\r\nuser-agent: lb/"), "{asked}");
    assert!(asked.contains("connection: close\r\n"), "{asked}");

    let (address, server_end) = server(says, true).await;
    let outcome = once(address, check(Kind::Http(http(vec![(200, 200), (503, 503)], true, None)))).await;
    assert_eq!(told(&outcome), (Ok(()), "503 Service Unavailable"));
    let asked = String::from_utf8(server_end.await.unwrap()).unwrap().to_lowercase();
    assert!(asked.starts_with(&format!("head /up?a=b http/1.1\r\nhost: {address}\r\n")), "{asked}");
}

#[tokio::test]
async fn what_is_no_page() {
    let kind = || check(Kind::Http(page()));
    let (address, _) = server("SSH-2.0-OpenSSH_9.9\r\n", true).await;
    assert_eq!(once(address, kind()).await.result, Err(Failure::Protocol));
    let (address, _) = server("", true).await;
    let ended = async {
        let (listener, address) = listener().await;
        tokio::spawn(async move { drop(listener.accept().await) });
        address
    };
    assert_eq!(once(ended.await, kind()).await.result, Err(Failure::Closed));
    assert_eq!(once(closed().await, kind()).await.result, Err(Failure::Refused));
    // One that says nothing.
    let hanging = Check { timeout: Duration::from_millis(50), ..kind() };
    assert_eq!(once(address, hanging).await.result, Err(Failure::TimedOut));
}

#[tokio::test]
async fn what_has_to_be_in_a_page() {
    let kind = |body: &str| check(Kind::Http(Http { body: Some(body.into()), ..page() }));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nall i\r\n6\r\ns fine\r\n0\r\n\r\n";
    let (address, _) = server(chunked, true).await;
    assert_eq!(told(&once(address, kind("is fine")).await), (Ok(()), "200 OK"));
    let (address, _) = server(chunked, true).await;
    assert_eq!(told(&once(address, kind("is well")).await), (Err(Failure::Body), "all is fine"));
    // Of a page without an end only the beginning is read.
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    });
    assert_eq!(once(address, kind("fine")).await.result, Err(Failure::Body));
}

/// An authority and a certificate of its for these names.
fn certificate(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, TlsAcceptor) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = authority.self_signed(&authority_key).unwrap().der().to_vec();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let signed = params.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![signed.der().clone()], key).unwrap();
    (der, TlsAcceptor::from(Arc::new(config)))
}

async fn tls_server(acceptor: TlsAcceptor) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read(&mut [0]).await;
        }
    });
    address
}

fn https(name: Option<&str>, authorities: Authorities) -> Check {
    check(Kind::Http(Http { tls: Some(Tls { name: name.map(Into::into), authorities }), ..page() }))
}

#[tokio::test]
async fn certificates() {
    let until = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let (authority, acceptor) = certificate(&["a.example", "127.0.0.1"], until);
    let (other, _) = certificate(&[], |_| ());
    let address = tls_server(acceptor).await;
    let these = |der: &Vec<u8>| Authorities::These([der.clone()].into());
    for name in [Some("a.example"), None] {
        let right = once(address, https(name, these(&authority))).await;
        assert_eq!(told(&right), (Ok(()), "200 OK"));
        let shown = right.certificate.unwrap();
        assert_eq!((shown.name.as_str(), shown.covers), (name.unwrap_or("127.0.0.1"), true));
        assert_eq!(shown.expires, Some(4_102_444_800));
    }
    let of_another = once(address, https(Some("b.example"), these(&authority))).await;
    assert_eq!(of_another.result, Err(Failure::Certificate));
    assert!(told(&of_another).1.contains("b.example"), "{of_another:?}");
    assert_eq!(once(address, https(None, these(&other))).await.result, Err(Failure::Certificate));
    assert_eq!(once(address, https(None, Authorities::System)).await.result, Err(Failure::Certificate));
    // By choice, any will do; what is wrong with it is shown.
    let unverified = once(address, https(Some("b.example"), Authorities::Anyone)).await;
    assert_eq!(unverified.result, Ok(()));
    assert!(!unverified.certificate.unwrap().covers);
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 2);
    };
    let (authority, acceptor) = certificate(&["a.example"], expired);
    let address = tls_server(acceptor).await;
    let outcome = once(address, https(Some("a.example"), Authorities::These([authority].into()))).await;
    assert_eq!(outcome.result, Err(Failure::Certificate));
    assert!(told(&outcome).1.contains("expired"), "{outcome:?}");
    let outcome = once(address, https(Some("a.example"), Authorities::Anyone)).await;
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.certificate.unwrap().expires, Some(978_393_600));
}

#[tokio::test]
async fn a_server_without_tls() {
    let (address, _) = server("HTTP/1.1 200 OK\r\n\r\n", true).await;
    assert_eq!(once(address, https(None, Authorities::Anyone)).await.result, Err(Failure::Tls));
}

/// A DNS server that answers every question with this code and these addresses.
async fn dns_server(code: ResponseCode, addresses: &'static [[u8; 4]]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_bytes(&buffer[..length]).unwrap();
            let name = answer.queries[0].name().clone();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = code;
            for address in addresses {
                answer.add_answer(Record::from_rdata(
                    name.clone(),
                    5,
                    RData::A(std::net::Ipv4Addr::from(*address).into()),
                ));
            }
            // An answer to another question first, as a late one would be.
            let mut late = answer.clone();
            late.metadata.id ^= 1;
            for message in [late, answer] {
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn questions() {
    let kind = |code, address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        check(Kind::Dns(Lookup { name: "www.example.com".into(), kind: 1, code, address }))
    };
    let server = dns_server(ResponseCode::NoError, &[[192, 0, 2, 1], [192, 0, 2, 2]]).await;
    let shown = "No Error 192.0.2.1, 192.0.2.2";
    assert_eq!(told(&once(server, kind(0, None)).await), (Ok(()), shown));
    assert_eq!(told(&once(server, kind(0, Some("192.0.2.2"))).await), (Ok(()), shown));
    assert_eq!(told(&once(server, kind(0, Some("192.0.2.3"))).await), (Err(Failure::Answer), shown));
    assert_eq!(once(server, kind(3, None)).await.result, Err(Failure::Code(0)));
    let server = dns_server(ResponseCode::NXDomain, &[]).await;
    assert_eq!(once(server, kind(0, None)).await.result, Err(Failure::Code(3)));
    assert_eq!(once(server, kind(3, None)).await.result, Ok(()));
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(once(nobody, kind(0, None)).await.result, Err(Failure::Refused));
}

#[tokio::test]
async fn datagrams() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            if &buffer[..length] == b"ping" {
                socket.send_to(b"pong 1", from).await.unwrap();
            }
        }
    });
    let kind = |send: &[u8], expect: Option<&[u8]>| {
        let timeout = Duration::from_millis(if send == b"ping" { 10_000 } else { 50 });
        Check { timeout, ..check(Kind::Udp(Datagram { send: send.into(), expect: expect.map(<[u8]>::to_vec) })) }
    };
    assert_eq!(told(&once(address, kind(b"ping", Some(b"pong"))).await), (Ok(()), "pong 1"));
    assert_eq!(told(&once(address, kind(b"ping", Some(b"peng"))).await), (Err(Failure::Answer), "pong 1"));
    assert_eq!(told(&once(address, kind(b"ping", None)).await), (Ok(()), "pong 1"));
    assert_eq!(once(address, kind(b"hello", Some(b"pong"))).await.result, Err(Failure::TimedOut));
    assert_eq!(told(&once(address, kind(b"", None)).await), (Ok(()), ""), "silence is as good as an answer");
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(once(nobody, kind(b"ping", None)).await.result, Err(Failure::Refused));
}

#[tokio::test]
async fn agents() {
    let kind = |send: Option<&str>| check(Kind::Agent(AgentCheck { send: send.map(Into::into), floor: 10, step: 5 }));
    let (address, asked) = server("drain 30% # tired\r\n", true).await;
    let outcome = once(address, kind(Some("web\n"))).await;
    assert_eq!(told(&outcome), (Ok(()), "drain 30% # tired"));
    assert_eq!(outcome.said, Some(Said { percent: Some(30), wish: Some(Wish::Drain), up: None }));
    assert_eq!(asked.await.unwrap(), b"web\n");
    let (address, _) = server("hello\n", false).await;
    assert_eq!(told(&once(address, kind(None)).await), (Err(Failure::Protocol), "hello"));
    // One whose line has no end.
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    });
    assert_eq!(once(address, kind(None)).await.result, Err(Failure::Protocol));
}

/// Thousands of targets, more of which hang than one thread could wait for one after the other: the others are probed again and again.
#[tokio::test]
async fn who_hangs_does_not_delay_the_others() {
    const GOOD: u32 = 2_000;
    const HANGING: u32 = 1_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
    let at_any = || TcpListener::bind("0.0.0.0:0");
    let (quick, hanging) = (at_any().await.unwrap(), at_any().await.unwrap());
    let ports = [&quick, &hanging].map(|listener| listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = quick.accept().await.unwrap();
            let _ = stream.write_all(b"up 100%\n").await;
        }
    });
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            silent.push(hanging.accept().await.unwrap());
        }
    });
    let check = |timeout| {
        let kind = Kind::Agent(AgentCheck { send: None, floor: 10, step: 5 });
        let [interval, timeout] = [timeout, timeout].map(Duration::from_millis);
        Arc::new(Check { interval, timeout, kind, ..Check::default() })
    };
    // A minute is longer than anything here takes.
    let (of_good, of_hanging) = (check(500), check(60_000));
    let (prober, mut probed) = prober();
    let address = |number: u32, port| SocketAddr::from((std::net::Ipv4Addr::from(0x7f01_0000 + number), port));
    for number in 0..HANGING {
        prober.start(Target { address: address(number, ports[1]), check: Arc::clone(&of_hanging), via: None });
    }
    for number in 0..GOOD {
        prober.start(Target { address: address(number, ports[0]), check: Arc::clone(&of_good), via: None });
    }
    let mut counts: HashMap<SocketAddr, u32> = HashMap::new();
    let mut enough = 0;
    while enough < GOOD {
        let Probed { target, outcome, .. } = probed.recv().await.unwrap();
        assert_eq!(target.address.port(), ports[0], "{target:?} does not answer: {outcome:?}");
        // On a busy machine one may come too late; the next does not.
        if outcome.result.is_ok() {
            let count = counts.entry(target.address).or_default();
            *count += 1;
            enough += u32::from(*count == 5);
        }
    }
}
