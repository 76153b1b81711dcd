//! Asks resolvers for the names of backends: one question at a time, by UDP, and by TCP what does not fit.
//!
//! What is asked and when is [`crate::model::discovery`]'s. The machine's resolver does the recursion, the caching and, if it does,
//! the validation.

use crate::model::discovery::{Found, Kind, Outcome, Question, Records, Server, canonical};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
    serialize::binary::BinDecodable as _,
};
use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::mpsc,
    time::timeout,
};

/// Which resolvers the system asks.
const SYSTEM: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// How long a resolver has for an answer. It may have to ask others; a lost datagram is another try's.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all of them are asked in turn.
const ROUNDS: usize = 2;
/// Bytes of an answer by UDP that are not fragmented on the way (DNS flag day 2020).
const PAYLOAD: u16 = 1_232;
/// Aliases that are followed within an answer, which could lead in a circle.
const ALIASES: usize = 16;
/// For how many seconds it holds that there are no addresses of a family.
const NONE_HOLDS: u32 = 30;
/// Questions that are asked at once.
const AT_ONCE: usize = 32;

/// Why there is no answer.
#[derive(Debug, Error)]
enum Failure {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the answer can't be read")]
    Malformed,
    #[error("the answer is cut off")]
    CutOff,
    #[error("the name does not exist (NXDOMAIN)")]
    NoName,
    #[error("the name has no SRV record")]
    NoRecord,
    #[error("the answer is {0}")]
    Code(ResponseCode),
    #[error("the question can't be written")]
    Question,
}

impl Failure {
    /// Whether another resolver would say the same.
    const fn is_answer(&self) -> bool {
        matches!(self, Self::NoName | Self::NoRecord | Self::Question)
    }
}

/// A question, and what came of asking it.
pub type Resolved = (Question, Outcome);

/// Asks these resolvers, or those of the system if there are none, and tells of each answer as it comes.
pub async fn resolve(nameservers: Vec<SocketAddr>, questions: Vec<Question>, told: mpsc::Sender<Resolved>) {
    let nameservers = if nameservers.is_empty() { of_system(Path::new(SYSTEM)) } else { nameservers };
    let nameservers = &nameservers;
    let mut waiting = questions.into_iter().map(|question| async move {
        let outcome = one(nameservers, &question).await;
        (question, outcome)
    });
    let mut asked: FuturesUnordered<_> = waiting.by_ref().take(AT_ONCE).collect();
    while let Some((question, outcome)) = asked.next().await {
        asked.extend(waiting.next());
        if told.send((question, outcome)).await.is_err() {
            break;
        }
    }
}

/// The resolvers of the system: as resolv.conf(5) says, the one on this machine if none is named.
fn of_system(path: &Path) -> Vec<SocketAddr> {
    let named = named(&fs::read_to_string(path).unwrap_or_default());
    if named.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { named }
}

fn named(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(word.parse().ok()?, PORT))
    };
    text.lines().filter_map(address).collect()
}

async fn one(nameservers: &[SocketAddr], question: &Question) -> Outcome {
    let mut last = String::new();
    for _ in 0..ROUNDS {
        for nameserver in nameservers {
            match ask(*nameserver, question).await {
                Ok(found) => return Ok(found),
                Err(failure) => {
                    last = format!("{nameserver}: {failure}");
                    if failure.is_answer() {
                        return Err(last);
                    }
                }
            }
        }
    }
    Err(last)
}

async fn ask(nameserver: SocketAddr, question: &Question) -> Result<Found, Failure> {
    // Not to be guessed by who can forge the resolver's address.
    let id = RandomState::new().hash_one(&question.name) as u16;
    let message = message(id, question).ok_or(Failure::Question)?;
    let answer =
        timeout(PATIENCE, by_udp(nameserver, &message, id, question)).await.map_err(|_| Failure::Timeout)??;
    let answer = if answer.metadata.truncation {
        timeout(PATIENCE, by_tcp(nameserver, &message, id, question)).await.map_err(|_| Failure::Timeout)??
    } else {
        answer
    };
    if answer.metadata.truncation {
        return Err(Failure::CutOff);
    }
    found(&answer, question)
}

fn message(id: u16, question: &Question) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wire_name(question)?, record_type(question.kind)));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message.to_vec().ok()
}

fn wire_name(question: &Question) -> Option<Name> {
    Name::from_ascii(format!("{}.", question.name)).ok()
}

const fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Srv => RecordType::SRV,
    }
}

async fn by_udp(nameserver: SocketAddr, message: &[u8], id: u16, question: &Question) -> Result<Message, Failure> {
    let any: IpAddr = if nameserver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(nameserver).await?;
    socket.send(message).await?;
    let mut buffer = [0; PAYLOAD as usize];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_bytes(buffer.get(..length).unwrap_or_default());
        // What is no answer to this question may be a late one to another, or a forged one.
        if let Ok(answer) = answer
            && is_answer(&answer, id, question)
        {
            return Ok(answer);
        }
    }
}

async fn by_tcp(nameserver: SocketAddr, message: &[u8], id: u16, question: &Question) -> Result<Message, Failure> {
    let mut stream = TcpStream::connect(nameserver).await?;
    let length = u16::try_from(message.len()).map_err(|_| Failure::Question)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_bytes(&answer).ok();
    answer.filter(|answer| is_answer(answer, id, question)).ok_or(Failure::Malformed)
}

fn is_answer(answer: &Message, id: u16, question: &Question) -> bool {
    let asked = |query: &Query| {
        query.query_type() == record_type(question.kind) && canonical(&query.name().to_ascii()) == question.name
    };
    let Message { metadata, queries, .. } = answer;
    // An answer without the question is one of a failure.
    let is_about =
        queries.iter().all(asked) && (!queries.is_empty() || metadata.response_code != ResponseCode::NoError);
    metadata.id == id && metadata.message_type == MessageType::Response && is_about
}

/// What an answer says: the records of the name, or of what it is an alias of, for as long as the shortest of their TTLs.
fn found(answer: &Message, question: &Question) -> Result<Found, Failure> {
    match answer.metadata.response_code {
        ResponseCode::NoError => (),
        ResponseCode::NXDomain => return Err(Failure::NoName),
        code => return Err(Failure::Code(code)),
    }
    let mut name = question.name.clone();
    let mut ttl = u32::MAX;
    let of = |name: String| answer.answers.iter().filter(move |record| canonical(&record.name.to_ascii()) == name);
    for _ in 0..ALIASES {
        let alias = of(name.clone()).find_map(|record| match &record.data {
            RData::CNAME(target) => Some((canonical(&target.0.to_ascii()), record.ttl)),
            _ => None,
        });
        let Some((target, of_alias)) = alias else { break };
        name = target;
        ttl = ttl.min(of_alias);
    }
    let (mut addresses, mut servers, mut any) = (BTreeSet::new(), BTreeSet::new(), false);
    for record in of(name) {
        match (&record.data, question.kind) {
            (RData::A(address), Kind::A) => _ = addresses.insert(address.0.into()),
            (RData::AAAA(address), Kind::Aaaa) => _ = addresses.insert(address.0.into()),
            // The root: the service is decidedly not there (RFC 2782).
            (RData::SRV(server), Kind::Srv) if server.target.is_root() => (),
            (RData::SRV(server), Kind::Srv) => {
                let host = canonical(&server.target.to_ascii());
                let (priority, weight, port) = (server.priority, server.weight, server.port);
                // Nothing listens at port 0.
                if port > 0 {
                    servers.insert(Server { priority, weight, port, host });
                }
            }
            _ => continue,
        }
        any = true;
        ttl = ttl.min(record.ttl);
    }
    if !any && question.kind == Kind::Srv {
        return Err(Failure::NoRecord);
    }
    // Whether it may be that there is none, the other family says.
    let ttl = if any { ttl } else { NONE_HOLDS };
    let records = if question.kind == Kind::Srv { Records::Servers(servers) } else { Records::Addresses(addresses) };
    Ok(Found { records, ttl: Duration::from_secs(ttl.into()) })
}

#[cfg(test)]
mod tests;
