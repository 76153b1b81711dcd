//! Whether a DNS question is answered as expected.

use super::{
    dial::{Dial, Dialed},
    outcome::Outcome,
};
use crate::model::{health::Failure, intent::Lookup};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
    serialize::binary::BinDecodable as _,
};
use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

/// Asks the question.
pub async fn probe(dial: &Dial<'_>, lookup: &Lookup) -> Outcome {
    exchange(dial, lookup).await.unwrap_or_else(|outcome| outcome)
}

async fn exchange(dial: &Dial<'_>, lookup: &Lookup) -> Result<Outcome, Outcome> {
    let Ok(name) = Name::from_ascii(format!("{}.", lookup.name)) else { return Ok(Failure::Protocol.into()) };
    // Not to be guessed by who can forge the target's address.
    let id = RandomState::new().hash_one(&lookup.name) as u16;
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::from(lookup.kind)));
    let Ok(question) = question.to_vec() else { return Ok(Failure::Protocol.into()) };
    let Dialed { socket, led: _led } = dial.datagrams().await?;
    socket.send(&question).await?;
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        match Message::from_bytes(answer) {
            // A late answer to an earlier question, or a forged one.
            Ok(answer) if answer.metadata.id != id || answer.metadata.message_type != MessageType::Response => (),
            Ok(answer) => return Ok(judge(&answer, lookup)),
            Err(_) => return Ok(Outcome::from(Failure::Protocol).with_output(answer)),
        }
    }
}

fn judge(answer: &Message, lookup: &Lookup) -> Outcome {
    let code = u16::from(answer.metadata.response_code);
    let address_of = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let has = |address| answer.answers.iter().any(|record| address_of(&record.data) == Some(address));
    let result = if code != lookup.code {
        Err(Failure::Code(code))
    } else if lookup.address.is_some_and(|address| !has(address)) {
        Err(Failure::Answer)
    } else {
        Ok(())
    };
    let records: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    Outcome::from(result).with_output(format!("{} {}", answer.metadata.response_code, records.join(", ")).as_bytes())
}
