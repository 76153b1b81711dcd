//! What `lb dns` shows of the answers in the kernel, and what it flushes.

use super::Agent;
use crate::{
    api::Refusal,
    kernel::flows::seconds,
    model::{
        answers::{
            image::{head_of, records_of, with_generation},
            placed::Held,
        },
        dns::rendered::Question,
    },
    status::{AnswerBody, AnswerDetail, AnswerList, AnswerStatus, TopName},
};
use anyhow::Result;
use hickory_proto::rr::{Name, RecordType};
use lb_common::tables::answers::{BLOCK_WORDS, NEGATIVE, Pick};

/// Answers that are listed at once.
const LISTED: usize = 10_000;
/// The response code, in flags.
const CODE: u16 = 0x000f;

impl Agent {
    /// The answers in the kernel, in the order of their names.
    pub(super) fn cache_list(&self) -> Result<AnswerList> {
        let now = seconds()?;
        let held = &self.actual.answers.held;
        let mut answers: Vec<_> = held.values().filter_map(|held| answer_status(held, now)).collect();
        answers.sort_unstable_by(|one, other| (&one.name, &one.kind).cmp(&(&other.name, &other.kind)));
        answers.truncate(LISTED);
        Ok(AnswerList { total: held.len(), answers })
    }

    /// What the kernel holds of a name.
    pub(super) fn cache_show(&mut self, name: &str) -> Result<Vec<AnswerDetail>, Refusal> {
        let wire = wire_of(name)?;
        let held: Vec<Held> = self.held_of(&wire).map(|(_, held)| held.clone()).collect();
        if held.is_empty() {
            return Err(not_held(name));
        }
        let details: Result<Vec<_>, _> = held.iter().map(|held| self.detail(held)).collect();
        details.map_err(|error| Refusal::failed(&error))
    }

    /// Has what the kernel holds of a name go if it has an end, and else be written anew; says how much that was.
    pub(super) fn cache_flush(&mut self, name: &str) -> Result<usize, Refusal> {
        let wire = wire_of(name)?;
        let questions: Vec<Question> = self.held_of(&wire).map(|(question, _)| question).collect();
        if questions.is_empty() {
            return Err(not_held(name));
        }
        for question in &questions {
            if !self.negatives.flush(question, &mut self.desired.answers) {
                self.desired.answers.touch(question);
            }
        }
        self.unsettled = true;
        // The answer tells of something done.
        self.settle().map_err(|error| Refusal::failed(&error))?;
        Ok(questions.len())
    }

    /// The names that are asked for most, as far as samples tell.
    pub(super) fn top(&self) -> Result<Vec<TopName>> {
        let samples = self.maps.samples()?;
        let total: u64 = samples.values().sum();
        let held = &self.actual.answers.held;
        let mut top: Vec<_> = samples
            .into_iter()
            .map(|(hash, samples)| {
                let question = held.get(&hash).and_then(|held| held.image.question());
                let (name, kind) = question.map_or_else(|| ("(gone)".into(), String::new()), |one| text_of(&one));
                TopName { name, kind, samples, share: samples as f64 / total as f64 }
            })
            .collect();
        top.sort_by(|one, other| (other.samples, &one.name).cmp(&(one.samples, &other.name)));
        top.truncate(LISTED);
        Ok(top)
    }

    fn held_of(&self, wire: &[u8]) -> impl Iterator<Item = (Question, &Held)> {
        let held = self.actual.answers.held.values();
        held.filter_map(move |held| Some((held.image.question().filter(|question| *question.wire == *wire)?, held)))
    }

    fn detail(&mut self, held: &Held) -> Result<AnswerDetail> {
        let answer = answer_status(held, seconds()?).ok_or_else(|| anyhow::anyhow!("an answer without a body"))?;
        let mut bodies = Vec::new();
        for (run, image) in held.runs.all().iter().zip(held.image.bodies()) {
            let words = self.maps.answer_words(run.block, image.len())?;
            let generation = head_of(&words).map_or(0, |head| head.generation);
            let head = head_of(image).unwrap_or_default();
            bodies.push(AnswerBody {
                block: run.block,
                generation,
                code: RESPONSE_CODES.get(usize::from(head.flags & CODE)).copied().unwrap_or("other").into(),
                records: u32::from(head.answers) + u32::from(head.authorities) + u32::from(head.additionals),
                rotated: head.turns,
                data: records_of(&words).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect(),
                is_as_written: words == with_generation(image, generation),
            });
        }
        Ok(AnswerDetail { answer, bodies })
    }
}

const RESPONSE_CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

fn answer_status(held: &Held, now: u64) -> Option<AnswerStatus> {
    let (name, kind) = text_of(&held.image.question()?);
    let head = head_of(held.image.bodies().next()?)?;
    let blocks: u64 = held.runs.all().iter().map(|run| u64::from(run.blocks)).sum();
    let class = match (held.image.is_cached(), head.class) {
        (true, NEGATIVE) => "negative",
        (true, _) => "cached",
        (false, _) => "authoritative",
    };
    let pick = match held.image.pick() {
        Pick::Only => "only",
        Pick::Turn => "turn",
        Pick::Random => "random",
        Pick::Client => "client",
    };
    Some(AnswerStatus {
        name,
        kind,
        class: class.into(),
        pick: pick.into(),
        bodies: held.image.bodies().count(),
        slots: held.image.slots().len(),
        bytes: blocks * u64::from(BLOCK_WORDS) * 8,
        ends_in_seconds: held.image.is_cached().then(|| held.image.spent_at().saturating_sub(now)),
    })
}

/// Name and type as people write them.
pub(super) fn text_of(question: &Question) -> (String, String) {
    let mut labels = Vec::new();
    let mut rest = &*question.wire;
    while let Some((label, behind)) =
        rest.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into()))
    {
        if label.is_empty() {
            break;
        }
        labels.push(label);
        rest = behind;
    }
    let name = Name::from_labels(labels).map_or_else(|_| "?".into(), |name| name.to_ascii());
    let name = if name.len() > 1 { name.trim_end_matches('.').into() } else { name };
    (name, RecordType::from(question.kind as u16).to_string())
}

fn wire_of(name: &str) -> Result<Vec<u8>, Refusal> {
    let parsed = Name::from_ascii(name).map_err(|error| Refusal::not_found(format!("`{name}` is no name: {error}")))?;
    let labels = parsed.iter().flat_map(|label| [&[label.len() as u8][..], label].concat());
    let wire: Vec<u8> = labels.chain([0]).collect();
    Ok(wire.to_ascii_lowercase())
}

fn not_held(name: &str) -> Refusal {
    Refusal::not_found(format!("the kernel holds no answer for `{name}`; `lb dns cache list` shows what it holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for name in ["www.example.com", ".", "_sip._udp.example", "a\\.b.example"] {
            let question = Question { wire: wire_of(name).unwrap().into(), kind: 0x1_0001 };
            assert_eq!(text_of(&question), (name.into(), "A".into()));
        }
        assert_eq!(wire_of("WWW.x.").unwrap(), b"\x03www\x01x\0");
        assert!(wire_of("a..b").is_err());
    }
}
