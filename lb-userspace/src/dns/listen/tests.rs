use super::*;
use crate::model::dns::{
    fixture,
    respond::{self, Server},
};
use std::str::FromStr as _;
use tokio::{
    net::{TcpStream, UdpSocket as Client},
    task::JoinHandle,
    time::timeout,
};

/// No step takes nearly as long on a machine that works.
const DEADLINE: Duration = Duration::from_secs(10);

/// A question for `x.` and its type, with this id.
fn query(id: u16, kind: u8) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    vec![a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, kind, 0, 1]
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn names(fours: u8, sixes: u16) -> Names {
    let fours = (1..=fours).map(|number| IpAddr::from([192, 0, 2, number]));
    let sixes = (1..=sixes).map(|number| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number]));
    let addresses = fours.chain(sixes).map(|address| (address, true)).collect();
    fixture::names(&[("x", addresses)], Server::default())
}

/// A listener on its own port of an address, served in the background.
struct Served {
    address: SocketAddr,
    names: watch::Sender<Arc<Names>>,
    asked: mpsc::Receiver<Asked>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Served {
    fn on(ip: &str, room: usize) -> Self {
        let (address, listener) = bind_somewhere(ip);
        let (names, current) = watch::channel(Arc::new(names(1, 30)));
        let (noted, asked) = mpsc::channel(room);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(listener.run(current, noted, Arc::clone(&counts)));
        Self { address, names, asked, counts, task }
    }

    async fn udp(&self) -> Client {
        let any = if self.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let client = Client::bind(any).await.unwrap();
        // Connected: a reply from another address than the one asked would not arrive.
        client.connect(self.address).await.unwrap();
        client
    }

    async fn tcp(&self) -> TcpStream {
        timeout(DEADLINE, TcpStream::connect(self.address)).await.unwrap().unwrap()
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.snapshot().answers[name]
    }
}

/// A port that is free for UDP may still be taken for TCP; then it is tried again with another one.
fn bind_somewhere(ip: &str) -> (SocketAddr, Listener) {
    let ip = IpAddr::from_str(ip).unwrap();
    for _ in 0..100 {
        let address = net::UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        if let Ok(listener) = Listener::bind(&[address]) {
            return (address, listener);
        }
    }
    panic!("no port of {ip} is free");
}

/// Sends a datagram and waits for its reply.
async fn ask(client: &Client, message: &[u8]) -> Vec<u8> {
    client.send(message).await.unwrap();
    let mut reply = vec![0; 65_535];
    let length = timeout(DEADLINE, client.recv(&mut reply)).await.unwrap().unwrap();
    reply.truncate(length);
    reply
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        stream.writable().await.unwrap();
        bytes = &bytes[stream.try_write(bytes).unwrap_or(0)..];
    }
}

/// Reads to the end of this many replies, or of the connection.
async fn replies(stream: &TcpStream, count: usize) -> Vec<Vec<u8>> {
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    while found.len() < count {
        timeout(DEADLINE, stream.readable()).await.unwrap().unwrap();
        let mut piece = [0; 4096];
        match stream.try_read(&mut piece) {
            Ok(0) => return found,
            Ok(read) => bytes.extend(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return found,
        }
        while bytes.len() >= 2 && bytes.len() >= 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) {
            let end = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
            found.push(bytes.drain(..end).skip(2).collect());
        }
    }
    found
}

fn reply(query: &[u8], transport: Transport, names: &Names) -> Vec<u8> {
    let from = respond::Client { address: [127, 0, 0, 1].into(), transport, second: 0 };
    respond(query, from, names, 0).unwrap().bytes
}

#[tokio::test]
async fn questions_are_answered_by_udp_and_tcp_over_both_families() {
    for ip in ["127.0.0.1", "::1"] {
        let mut served = Served::on(ip, 8);
        let (four, six) = (query(7, 1), query(8, 28));
        let client = served.udp().await;
        assert_eq!(ask(&client, &four).await, reply(&four, Transport::Udp, &names(1, 0)));
        assert_eq!(
            timeout(DEADLINE, served.asked.recv()).await.unwrap(),
            Some(Asked { wire: b"\x01x\0".as_slice().into(), kind: 0x1_0001 })
        );
        let large = ask(&client, &six).await;
        assert_eq!((large.len(), large[2] & 2), (six.len(), 2), "30 AAAA records do not fit a plain response");

        let stream = served.tcp().await;
        send(&stream, &framed(&six)).await;
        let all = replies(&stream, 1).await;
        assert_eq!((all[0].len(), all[0][7]), (six.len() + 30 * 28, 30));
        let counts = served.counts.snapshot();
        assert_eq!((counts.queries, counts.over_tcp, counts.truncated, counts.malformed), (3, 1, 1, 0));
        assert_eq!((served.count("NOERROR"), served.count("REFUSED")), (3, 0));
    }
}

#[tokio::test]
async fn a_connection_takes_many_questions_however_they_are_cut() {
    let served = Served::on("127.0.0.1", 8);
    let stream = served.tcp().await;
    let sent: Vec<_> = (0..20).map(|id| query(id, 1)).collect();
    let bytes: Vec<u8> = sent.iter().flat_map(|message| framed(message)).collect();
    send(&stream, &bytes).await;
    for piece in bytes.chunks(3) {
        send(&stream, piece).await;
        tokio::task::yield_now().await;
    }
    let expected: Vec<_> =
        sent.iter().chain(&sent).map(|message| reply(message, Transport::Tcp, &names(1, 0))).collect();
    assert_eq!(replies(&stream, 40).await, expected);
}

#[tokio::test]
async fn addresses_of_a_name_take_turns_even_if_a_and_aaaa_are_asked_in_turns() {
    let served = Served::on("127.0.0.1", 8);
    served.names.send_replace(Arc::new(names(2, 2)));
    let client = served.udp().await;
    let mut firsts = [0; 2];
    for id in 0..200 {
        let reply = ask(&client, &query(id, 1)).await;
        firsts[usize::from(reply[19 + 15]) - 1] += 1;
        ask(&client, &query(id, 28)).await;
    }
    assert!(firsts.iter().all(|count| (90..=110).contains(count)), "{firsts:?}");
}

#[tokio::test]
async fn garbage_gets_an_error_or_nothing_and_stops_nobody() {
    let served = Served::on("127.0.0.1", 8);
    let client = served.udp().await;
    let question = query(1, 1);
    let response: Vec<u8> = question.iter().enumerate().map(|(at, byte)| if at == 2 { 0x81 } else { *byte }).collect();
    for silent in [&[][..], &[0; 11], &response] {
        client.send(silent).await.unwrap();
    }
    // The next reply is to the next question: nothing came for the silent ones.
    assert_eq!(ask(&client, &question[..18]).await[..4], [0, 1, 0x81, 1]);
    let mut seed = 1_u64;
    for length in 12..300 {
        let mut noise: Vec<u8> = Vec::new();
        for _ in 0..length {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            noise.push((seed >> 56) as u8);
        }
        noise[2] &= 0x7f;
        let reply = ask(&client, &noise).await;
        assert_eq!((&reply[..2], reply[2] & 0x80), (&noise[..2], 0x80));
    }
    assert_eq!(served.counts.snapshot().malformed, 3);

    for silent in [&[0, 0][..], &framed(&[0; 11]), &framed(&response)] {
        let stream = served.tcp().await;
        send(&stream, silent).await;
        assert!(replies(&stream, 1).await.is_empty(), "the connection is closed");
    }
    let unfinished = served.tcp().await;
    send(&unfinished, &[0xff, 0xff, 1, 2, 3]).await;
    let stream = served.tcp().await;
    let largest = [&question[..], &[0; 65_535 - 19]].concat();
    send(&stream, &framed(&largest)).await;
    drop(unfinished);
    assert_eq!(replies(&stream, 1).await, [reply(&question, Transport::Tcp, &names(1, 0))]);
    assert_eq!(ask(&client, &question).await, reply(&question, Transport::Udp, &names(1, 0)));
}

#[tokio::test]
async fn a_full_channel_of_notes_delays_no_answer() {
    let mut served = Served::on("127.0.0.1", 1);
    let client = served.udp().await;
    for id in 0..10 {
        ask(&client, &query(id, 1)).await;
    }
    assert!(served.asked.try_recv().is_ok());
    assert!(served.asked.try_recv().is_err(), "one note had room");
    ask(&client, &query(0, 1)).await;
    assert!(served.asked.try_recv().is_ok(), "the question is noted when it is asked again");
}

#[tokio::test]
async fn changed_names_are_answered_at_once() {
    let served = Served::on("127.0.0.1", 8);
    let client = served.udp().await;
    for fours in [1, 3, 0, 2] {
        served.names.send_replace(Arc::new(names(fours, 0)));
        assert_eq!(ask(&client, &query(0, 1)).await[7], fours);
    }
}

/// With threads, as the agent runs: a socket dropped a little later would still be bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ports_are_free_as_soon_as_serving_has_ended() {
    let served = Served::on("127.0.0.1", 8);
    let mut open = Vec::new();
    for id in 0..20 {
        let stream = served.tcp().await;
        send(&stream, &framed(&query(id, 1))).await;
        assert_eq!(replies(&stream, 1).await.len(), 1);
        // The others are closed by the client, before and not after the server.
        if id % 2 == 0 {
            open.push(stream);
        }
    }
    served.task.abort();
    assert!(served.task.await.unwrap_err().is_cancelled());
    let again = Listener::bind(&[served.address]).unwrap();
    for stream in open {
        assert!(replies(&stream, 1).await.is_empty(), "its connections end too");
    }
    drop(again);
    Listener::bind(&[served.address]).unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let served = Served::on("127.0.0.1", 8);
    let mut streams = Vec::new();
    for id in 0..CONNECTIONS as u16 {
        let stream = served.tcp().await;
        send(&stream, &framed(&query(id, 1))).await;
        assert_eq!(replies(&stream, 1).await.len(), 1);
        streams.push(stream);
    }
    let next = served.tcp().await;
    send(&next, &framed(&query(0, 1))).await;
    // UDP is served meanwhile, and by then the question on the new connection has been there for long.
    for id in 0..50 {
        ask(&served.udp().await, &query(id, 1)).await;
    }
    assert_eq!(served.counts.snapshot().over_tcp, CONNECTIONS as u64);
    streams.pop();
    assert_eq!(replies(&next, 1).await.len(), 1);
}

#[tokio::test]
async fn a_silent_client_is_let_go() {
    let (_names, names) = watch::channel(Arc::default());
    let answerer = Answerer { names, asked: mpsc::channel(1).0, counts: Arc::default(), turns: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for said in [&[][..], &[0], &[0, 19, 1, 2]] {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        send(&client, said).await;
        let (stream, _) = listener.accept().await.unwrap();
        let served = connection::serve(stream, [127, 0, 0, 1].into(), &answerer, Duration::from_millis(1));
        let error = timeout(DEADLINE, served).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

#[test]
fn errors_say_what_to_do() {
    let (address, _listener) = bind_somewhere("127.0.0.1");
    let port = address.port();
    let error = Listener::bind(&[address]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {address} (udp): the port is in use; `ss -lnup 'sport = :{port}'` shows by whom")
    );
    let (other, listener) = bind_somewhere("127.0.0.1");
    let error = ListenError::new(other, "tcp", io::ErrorKind::AddrInUse.into());
    assert!(error.to_string().contains("`ss -lntp "), "{error}");
    drop(listener);

    let error = Listener::bind(&["203.0.113.77:5353".parse().unwrap()]).unwrap_err().to_string();
    assert!(error.ends_with("`ip address add 203.0.113.77/32 dev <interface>`"), "{error}");
    let error = ListenError::new("[2001:db8::1]:53".parse().unwrap(), "udp", io::ErrorKind::AddrNotAvailable.into());
    assert!(error.to_string().ends_with("`ip address add 2001:db8::1/128 dev <interface>`"), "{error}");
    let error = ListenError::new(address, "udp", io::ErrorKind::PermissionDenied.into());
    assert!(error.to_string().contains("CAP_NET_BIND_SERVICE"), "{error}");
}

#[test]
fn a_failed_bind_leaves_nothing_behind_and_families_do_not_collide() {
    let (taken, _kept) = bind_somewhere("127.0.0.1");
    // Another test may take the port between two steps.
    let is_free_again = (0..10).any(|_| {
        let (address, listener) = bind_somewhere("127.0.0.1");
        drop(listener);
        assert!(matches!(Listener::bind(&[address, taken]), Err(ListenError::InUse { .. })));
        let everywhere = ["::", "0.0.0.0"].map(|ip| SocketAddr::new(ip.parse().unwrap(), address.port()));
        Listener::bind(&everywhere).is_ok()
    });
    assert!(is_free_again);
}
