//! From a question to its body: hashes that are equal, and words that the agent stores meanwhile.

use crate::support::{
    SIDES, V4,
    messages::{A, Edns, IN, Name, Question, question_frame},
    steered,
    tables::{BUCKETS, Build, KEYS, empty, words},
};
use lb_common::{
    hash,
    host::HostTables,
    path::answer::name_hash,
    tables::{
        Tables as _,
        answers::{Bucket, Leads, question_hash},
    },
    verdict::{Verdict, Why},
};
use std::net::IpAddr;

const ANSWERED: Verdict = Verdict::Transmit(Why::Answered);

fn address(index: u8) -> IpAddr {
    [192, 0, 2, index].into()
}

fn name() -> Name {
    Name::of("www.example.com")
}

fn bucket_of(name: &Name) -> (u64, u32) {
    let question = question_hash(name_hash(&KEYS, &words(&name.0)).unwrap(), u32::from(A) | u32::from(IN) << 16);
    (question, hash::slot(question as u32, BUCKETS))
}

/// What becomes of the question, and the last byte of the first address of its answer.
fn ask(tables: &HostTables, question: &Question) -> (Verdict, Option<u8>) {
    let message = question.bytes();
    let frame = question_frame(V4.client(), V4.dns(), message).bytes();
    let (verdict, reply) = steered(&frame, tables);
    let first = 42 + Question::plain(&name(), A).bytes().len();
    (verdict, (verdict == ANSWERED).then(|| reply[first + 15]))
}

/// Puts the entry of `from` into the bucket of `to`, before or behind what is there, with the hash of `to`.
fn collide(tables: &mut HostTables, from: &Name, to: &Name, before: bool) {
    let (_, from) = bucket_of(from);
    let (question, block) = bucket_of(to);
    let [mut entry, ..] = *tables.bucket(from).unwrap();
    entry.question = question;
    let mut bucket: Bucket = *tables.bucket(block).unwrap();
    bucket[1] = entry;
    if before {
        bucket.swap(0, 1);
    }
    tables.answers.write(block, bytemuck::cast_slice(&bucket));
}

/// The agent never puts two names with one hash into an index, as the second could not be found. If it did, nobody would get the
/// other's answer.
#[test]
fn an_entry_of_an_equal_hash_never_gives_the_answer_of_another_name() {
    let other = Name::of("mail.example.com");
    let question = Question::plain(&name(), A);
    for (before, expected) in [(false, (ANSWERED, Some(1))), (true, (Verdict::Pass(Why::DnsMiss), None))] {
        let mut tables =
            empty().with_dns(V4.dns()).with_answer(&name(), &[address(1)]).with_answer(&other, &[address(2)]);
        collide(&mut tables, &other, &name(), before);
        assert_eq!(ask(&tables, &question), expected, "the other is before it: {before}");
    }
}

/// Two entries of one question, one for each state of the DO bit, in either order.
#[test]
fn entries_of_one_question_are_told_apart_by_the_do_bit() {
    for order in [[1, 2], [2, 1]] {
        let mut tables = empty().with_dns(V4.dns());
        for dnssec in order {
            tables = tables.with_answer(&name(), &[address(dnssec)]);
        }
        let (_, block) = bucket_of(&name());
        let mut bucket: Bucket = *tables.bucket(block).unwrap();
        for (entry, dnssec) in bucket.iter_mut().zip(order) {
            entry.leads = Leads { dnssec, ..Leads::from_word(entry.leads) }.word();
        }
        tables.answers.write(block, bytemuck::cast_slice(&bucket));

        let mut question = Question::plain(&name(), A);
        assert_eq!(ask(&tables, &question), (ANSWERED, Some(1)));
        question.edns = Some(Edns { extended: 0x8000, ..Edns::of_size(1232) });
        assert_eq!(ask(&tables, &question), (ANSWERED, Some(2)));
    }
}

/// The path reads the region, the entry, the first word of the body, and that once more after it has copied the answer.
#[test]
fn a_body_replaced_under_the_reader_is_no_answer() {
    for side in SIDES {
        let tables = empty().with_dns(side.dns()).with_answer(&name(), &[address(1)]);
        let frame = question_frame(side.client(), side.dns(), Question::plain(&name(), A).bytes()).bytes();
        for (word, expected) in [(3, Verdict::Pass(Why::DnsMiss)), (4, Verdict::Drop(Why::DnsReplaced)), (5, ANSWERED)]
        {
            tables.replaced.set(word);
            assert_eq!(steered(&frame, &tables).0, expected, "word {word}");
        }
    }
}
