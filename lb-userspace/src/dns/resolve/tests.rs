use super::*;
use hickory_proto::rr::{
    Record,
    rdata::{A, CNAME, SRV},
};

const HOST: &str = "api-server-01.internal.example.com";

fn name(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).unwrap()
}

fn answer(question: &Question, records: &[(&str, u32, RData)]) -> Message {
    let mut answer = Message::response(7, OpCode::Query);
    answer.add_query(Query::query(wire_name(question).unwrap(), record_type(question.kind)));
    for (owner, ttl, data) in records {
        answer.add_answer(Record::from_rdata(name(owner), *ttl, data.clone()));
    }
    answer
}

/// Whether there are no addresses, for a while.
fn is_none(found: &Result<Found, Failure>) -> bool {
    let none = Records::Addresses(BTreeSet::new());
    matches!(found, Ok(Found { records, ttl }) if *records == none && ttl.as_secs() == u64::from(NONE_HOLDS))
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

#[test]
fn the_resolvers_of_the_system_are_read() {
    let text =
        "# nameserver 10.0.0.1\nsearch example.com\nnameserver 10.0.0.2\n nameserver  2001:db8::53 \nnameserver x\n";
    assert_eq!(named(text), ["10.0.0.2:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]);
    assert_eq!(of_system(Path::new("/nonexistent")), ["127.0.0.1:53".parse().unwrap()]);
}

#[test]
fn an_answer_is_one_to_the_question() {
    let question = Question::new("API-Server-01.internal.example.com.", Kind::A);
    assert_eq!(question.name, HOST);
    let right = answer(&question, &[]);
    assert!(is_answer(&right, 7, &question));
    assert!(!is_answer(&right, 8, &question));
    assert!(!is_answer(&right, 7, &Question::new(HOST, Kind::Aaaa)));
    assert!(!is_answer(&right, 7, &Question::new("other.example.com", Kind::A)));
    let asked = Message::from_bytes(&message(7, &question).unwrap()).unwrap();
    assert!(!is_answer(&asked, 7, &question), "a question is no answer");
}

#[test]
fn addresses_are_found_behind_aliases_for_the_shortest_ttl() {
    let question = Question::new(HOST, Kind::A);
    let alias = |to: &str| RData::CNAME(CNAME(name(to)));
    let records = [
        (HOST, 30, alias("Node.example.com")),
        ("node.example.com", 300, a(2)),
        ("node.example.com", 300, a(1)),
        ("other.example.com", 1, a(9)),
    ];
    let Found { records, ttl } = found(&answer(&question, &records), &question).unwrap();
    assert_eq!(records, Records::Addresses(BTreeSet::from([[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])));
    assert_eq!(ttl, Duration::from_secs(30));
    let circle = [(HOST, 30, alias("b.example.com")), ("b.example.com", 30, alias(HOST))];
    assert!(is_none(&found(&answer(&question, &circle), &question)));
}

#[test]
fn what_is_no_answer_is_a_failure() {
    let question = Question::new(HOST, Kind::A);
    assert!(is_none(&found(&answer(&question, &[]), &question)));
    let srv = Question::new(HOST, Kind::Srv);
    assert!(matches!(found(&answer(&srv, &[]), &srv), Err(Failure::NoRecord)));
    for (code, expected) in [
        (ResponseCode::NXDomain, "the name does not exist (NXDOMAIN)"),
        (ResponseCode::Refused, "the answer is Query Refused"),
    ] {
        let mut failed = answer(&question, &[(HOST, 60, a(1))]);
        failed.metadata.response_code = code;
        assert_eq!(found(&failed, &question).unwrap_err().to_string(), expected);
    }
}

#[test]
fn srv_records_are_servers_and_the_root_is_none() {
    let question = Question::new("_http._tcp.example.com", Kind::Srv);
    let srv = |priority, weight, port, to: &str| {
        let target = if to.is_empty() { Name::root() } else { name(to) };
        ("_http._tcp.example.com", 60, RData::SRV(SRV::new(priority, weight, port, target)))
    };
    let records = [srv(10, 60, 8080, "A.example.com"), srv(20, 0, 0, "b.example.com")];
    let Found { records, .. } = found(&answer(&question, &records), &question).unwrap();
    let server = Server { priority: 10, weight: 60, port: 8080, host: "a.example.com".into() };
    assert_eq!(records, Records::Servers(BTreeSet::from([server])));
    let nowhere = found(&answer(&question, &[srv(0, 0, 0, "")]), &question).unwrap();
    assert_eq!(nowhere.records, Records::Servers(BTreeSet::new()));
}

#[tokio::test]
async fn a_long_answer_is_asked_for_by_tcp_and_a_dead_resolver_is_passed_over() {
    let question = Question::new(HOST, Kind::A);
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = tokio::net::TcpListener::bind(address).await.unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_bytes(&buffer[..length]).unwrap();
        let question = Question::new(HOST, Kind::A);
        // A forged one comes first.
        let mut forged = answer(&question, &[(HOST, 60, a(66))]);
        forged.metadata.id = asked.metadata.id.wrapping_add(1);
        udp.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
        let mut short = answer(&question, &[]);
        short.metadata.id = asked.metadata.id;
        short.metadata.truncation = true;
        udp.send_to(&short.to_vec().unwrap(), client).await.unwrap();
        let (mut stream, _) = tcp.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut asked = vec![0; length.into()];
        stream.read_exact(&mut asked).await.unwrap();
        let mut whole = answer(&question, &[(HOST, 60, a(1))]);
        whole.metadata.id = Message::from_bytes(&asked).unwrap().metadata.id;
        let whole = whole.to_vec().unwrap();
        stream.write_u16(whole.len() as u16).await.unwrap();
        stream.write_all(&whole).await.unwrap();
    });
    let (tell, mut told) = mpsc::channel(1);
    resolve(vec![dead, address], vec![question.clone()], tell).await;
    server.await.unwrap();
    let records = Records::Addresses(BTreeSet::from([[10, 0, 0, 1].into()]));
    assert_eq!(told.recv().await, Some((question, Ok(Found { records, ttl: Duration::from_secs(60) }))));
}

/// A resolver that says this to every question by UDP and by TCP; nothing: it is silent. By UDP it cuts off what is too long.
async fn resolver(say: impl Fn(&Question) -> Option<Message> + Send + Sync + 'static) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = tokio::net::TcpListener::bind(address).await.unwrap();
    let said = move |asked: &[u8]| {
        let asked = Message::from_bytes(asked).unwrap();
        let mut answer = say(&Question::new(&asked.queries[0].name().to_ascii(), Kind::A))?;
        answer.metadata.id = asked.metadata.id;
        Some(answer)
    };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            tokio::select! {
                Ok((length, client)) = udp.recv_from(&mut buffer) => {
                    let Some(mut answer) = said(&buffer[..length]) else { continue };
                    if answer.to_vec().unwrap().len() > PAYLOAD.into() {
                        answer.answers.clear();
                        answer.metadata.truncation = true;
                    }
                    udp.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
                }
                Ok((mut stream, _)) = tcp.accept() => {
                    let mut asked = vec![0; stream.read_u16().await.unwrap().into()];
                    stream.read_exact(&mut asked).await.unwrap();
                    let answer = said(&asked).unwrap().to_vec().unwrap();
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    address
}

async fn asked(nameservers: &[SocketAddr]) -> Outcome {
    one(nameservers, &Question::new(HOST, Kind::A)).await
}

#[tokio::test]
async fn who_fails_is_passed_over_and_who_denies_is_believed() {
    let code = |code| {
        move |question: &Question| {
            let mut failed = answer(question, &[]);
            failed.metadata.response_code = code;
            Some(failed)
        }
    };
    let [servfail, refused, nobody] = [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain].map(code);
    let (servfail, refused, nobody) = (resolver(servfail).await, resolver(refused).await, resolver(nobody).await);
    let right = resolver(|question| Some(answer(question, &[(HOST, 60, a(1))]))).await;
    let silent = resolver(|_| None).await;
    let found = Records::Addresses(BTreeSet::from([[10, 0, 0, 1].into()]));
    assert_eq!(asked(&[servfail, refused, right]).await.unwrap().records, found);
    assert_eq!(asked(&[silent, right]).await.unwrap().records, found);
    let denied = asked(&[servfail, nobody, right]).await.unwrap_err();
    assert_eq!(denied, format!("{nobody}: the name does not exist (NXDOMAIN)"));
    let failed = asked(&[refused, servfail]).await.unwrap_err();
    assert_eq!(failed, format!("{servfail}: the answer is Server Failure"));
}

#[tokio::test]
async fn a_long_answer_is_taken_whole_or_not_at_all() {
    let of = |count: u32| {
        let addresses: Vec<Ipv4Addr> = (0..count).map(|number| Ipv4Addr::from(0x0a00_0000 + number)).collect();
        let records: Vec<_> = addresses.iter().map(|address| (HOST, 0, RData::A(A(*address)))).collect();
        (Records::Addresses(addresses.into_iter().map(Into::into).collect()), records)
    };
    let (expected, records) = of(1_300);
    let long = resolver(move |question| Some(answer(question, &records))).await;
    let Found { records, ttl } = asked(&[long]).await.unwrap();
    assert!(records == expected, "{} records", records.texts().len());
    assert_eq!(ttl, Duration::ZERO, "who asks again has a bound of its own");
    // What fits no message is cut off by TCP too: a part of the servers is not all of them.
    let (_, records) = of(4_000);
    let longer = resolver(move |question| Some(answer(question, &records))).await;
    assert_eq!(asked(&[longer]).await.unwrap_err(), format!("{longer}: the answer is cut off"));
}
