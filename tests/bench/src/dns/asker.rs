//! Who asks: live frames out of BPF_PROG_TEST_RUN, sent by a program on one CPU, and a program that takes the responses. Nothing of it
//! goes through a socket, so that one CPU asks more than any server answers.

use super::{
    cable::Cable,
    cases::{ADDRESSES, Asked, Case, FIRST_CLIENT, LARGEST, NUMBER_PLACE},
};
use crate::{
    control::NUMBER4,
    path::stay_on,
    questions::{Constant, QUESTION_BYTES, Questions, RECORD_WORDS, ROWS, SAMPLE_BYTES, SAMPLES, Sample, UDP4, UDP6},
};
use ::tests::{Host, wait_until};
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId},
};
use bytemuck::Zeroable as _;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hickory_proto::op::{Message, MessageType};
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::BTreeMap,
    iter,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-dns-bench.bpf.o"));
const QUESTIONS_WORDS: usize = size_of::<Questions>() / 8;
const CONSTANT_WORDS: usize = size_of::<Constant>() / 8;
const SAMPLE_WORDS: usize = size_of::<Sample>() / 8;
/// Frames that are made at once.
const BATCH: u32 = 64;
/// Frames of one call of the kernel, after which the time is looked at: some 10 ms.
const CALL: u32 = 1 << 16;
/// UDP's header.
const HEADER: usize = 8;
const TTL_SECONDS: u32 = 60;

/// The programs and their maps.
pub struct Asker {
    ebpf: Ebpf,
    questions: Array<MapData, [u64; QUESTIONS_WORDS]>,
    constant: Array<MapData, [u64; CONSTANT_WORDS]>,
    kept: Array<MapData, [u64; SAMPLE_WORDS]>,
    times: Array<MapData, u64>,
    cpu: usize,
    /// Where responses are taken, by the index of the interface.
    taking: BTreeMap<u32, XdpLinkId>,
}

/// How fast is asked.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As many questions as this are on the way.
    Window(u32),
    /// So many a second, each with its time taken.
    Rate(u64),
}

/// What came of a time of asking.
#[derive(Clone, Debug)]
pub struct Answers {
    /// How long it was.
    pub elapsed: Duration,
    /// Questions sent.
    pub sent: u64,
    /// Right responses.
    pub answered: u64,
    /// Responses with TC.
    pub truncated: u64,
    /// Wrong responses.
    pub wrong: u64,
    /// Responses by row ([`crate::questions::row`]) of the time that they took, with [`Pace::Rate`].
    pub times: Vec<u64>,
    /// What is to be said of the responses that were looked at.
    pub note: Option<&'static str>,
}

impl Answers {
    /// Right responses a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// The share of the questions that got no right response.
    pub fn unanswered(&self) -> f64 {
        1.0 - self.answered as f64 / self.sent.max(1) as f64
    }
}

impl Asker {
    /// Loads the programs; questions are asked on this CPU.
    pub fn load(cpu: usize) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("cannot load the programs that ask")?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            let name = name.to_owned();
            program.load().with_context(|| format!("cannot load {name}"))?;
        }
        let mut map = |name: &'static str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            questions: map("QUESTIONS")?.try_into()?,
            constant: map("CONSTANT")?.try_into()?,
            kept: map("KEPT")?.try_into()?,
            times: map("TIMES")?.try_into()?,
            ebpf,
            cpu,
            taking: BTreeMap::new(),
        })
    }

    /// From now on takes the responses that come by a cable, or lets them pass.
    pub fn take(&mut self, client: &Host, cable: &Cable) -> Result<()> {
        let link = self.attach(client, "take", cable.client_index)?;
        self.taking.insert(cable.client_index, link);
        Ok(())
    }

    /// Makes room for another program at the client's end of a cable, which has to be one that takes responses.
    pub fn leave(&mut self, cable: &Cable) -> Result<()> {
        self.taking.remove(&cable.client_index).map_or(Ok(()), |link| self.detach("take", link))
    }

    /// Puts a program on an interface.
    pub fn attach(&mut self, host: &Host, name: &str, index: u32) -> Result<XdpLinkId> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        host.inside(|| program.attach_to_if_index(index, XdpMode::Driver))?
            .with_context(|| format!("cannot attach {name} to interface {index}"))
    }

    /// Takes it off.
    pub fn detach(&mut self, name: &str, link: XdpLinkId) -> Result<()> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        Ok(program.detach(link)?)
    }

    /// Has `floor` answer questions of this case.
    pub fn set_floor(&mut self, case: &Case) -> Result<()> {
        self.constant.set(0, bytemuck::cast::<_, [u64; CONSTANT_WORDS]>(constant(case)?), 0)?;
        Ok(())
    }

    /// Asks for a time. `expected` is what a right response has, RCODE and number of answers; `in_turn`: one name after the other.
    pub fn ask(
        &mut self,
        (client, cable): (&Host, &Cable),
        case: &Case,
        expected: (u16, u16),
        (pace, in_turn): (Pace, bool),
        time: Duration,
    ) -> Result<Answers> {
        let mut questions = questions(cable, case)?;
        let (rcode, answers) = expected;
        questions.expected = u64::from(rcode) | u64::from(answers) << 16;
        questions.in_turn = in_turn.into();
        questions.taken = 1;
        match pace {
            Pace::Window(window) => questions.window = window.into(),
            Pace::Rate(rate) => (questions.rate, questions.timed) = (rate, 1),
        }
        let frame = questions.template.get(..usize::try_from(questions.length)?).unwrap_or_default().to_vec();
        let nothing = Sample::zeroed();
        for number in 0..SAMPLES {
            self.kept.set(number, bytemuck::cast::<_, [u64; SAMPLE_WORDS]>(nothing), 0)?;
        }
        if questions.timed != 0 {
            for row in 0..ROWS {
                self.times.set(row, 0, 0)?;
            }
        }
        let Self { ebpf, questions: map, cpu, .. } = self;
        let program: &Xdp = ebpf.program("ask").context("no program ask")?.try_into()?;
        let elapsed = client.inside(|| -> Result<Duration> {
            stay_on(*cpu)?;
            questions.started = monotonic()?;
            map.set(0, bytemuck::cast::<_, [u64; QUESTIONS_WORDS]>(questions), 0)?;
            let started = Instant::now();
            while started.elapsed() < time {
                let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
                let options =
                    TestRunOptions { data_in: Some(&frame), repeat: CALL, attrs, ..TestRunOptions::default() };
                program.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
            }
            Ok(started.elapsed())
        })??;
        let counts = self.last_responses()?;
        let note = self.check(case, expected)?;
        let times = match pace {
            Pace::Window(_) => Vec::new(),
            Pace::Rate(_) => (0..ROWS).map(|row| self.times.get(&row, 0)).collect::<Result<_, _>>()?,
        };
        self.stop_taking(counts)?;
        let Questions { sent, answered, truncated, wrong, .. } = counts;
        Ok(Answers { elapsed, sent, answered, truncated, wrong, times, note })
    }

    /// What was counted, once all responses are there or no more come.
    fn last_responses(&self) -> Result<Questions> {
        let mut last = (0, Instant::now());
        wait_until(Duration::from_secs(2), "no more responses come", || {
            let counts: Questions = bytemuck::cast(self.questions.get(&0, 0).ok()?);
            let responses = counts.answered + counts.truncated + counts.wrong;
            if responses != last.0 {
                last = (responses, Instant::now());
            }
            (responses >= counts.sent || last.1.elapsed() > Duration::from_millis(100)).then_some(counts)
        })
    }

    /// From now on everything passes.
    fn stop_taking(&mut self, mut questions: Questions) -> Result<()> {
        questions.taken = 0;
        Ok(self.questions.set(0, bytemuck::cast::<_, [u64; QUESTIONS_WORDS]>(questions), 0)?)
    }

    /// Looks at the responses that were kept: all have to be right.
    fn check(&self, case: &Case, expected: (u16, u16)) -> Result<Option<&'static str>> {
        let mut note = None;
        for number in 0..SAMPLES {
            let sample: Sample = bytemuck::cast(self.kept.get(&number, 0)?);
            let length = usize::try_from(sample.length)?.min(SAMPLE_BYTES);
            let frame = sample.bytes.get(..length).unwrap_or_default();
            if !frame.is_empty() {
                note = note.or(check(frame, case, expected).with_context(|| format!("a response of {length} bytes"))?);
            }
        }
        Ok(note)
    }
}

/// Whether a frame is a right response, or one that is cut short; and what is to be said of it.
fn check(frame: &[u8], case: &Case, expected: (u16, u16)) -> Result<Option<&'static str>> {
    let packet = SlicedPacket::from_ethernet(frame).context("it is no packet")?;
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { anyhow::bail!("it is not UDP") };
    let header = udp.to_header();
    let sum = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let ip = ip.header().to_header();
            ensure!(ip.header_checksum == ip.calc_header_checksum(), "the checksum of IPv4 is wrong");
            header.calc_checksum_ipv4_raw(ip.source, ip.destination, udp.payload())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let ip = ip.header().to_header();
            header.calc_checksum_ipv6_raw(ip.source, ip.destination, udp.payload())
        }
        _ => anyhow::bail!("it is not IP"),
    };
    // Over IPv4 a checksum may be left out (RFC 768), which Knot does on AF_XDP.
    let is_left_out = header.checksum == 0 && !case.ipv6;
    ensure!(is_left_out || sum.is_ok_and(|sum| sum == header.checksum), "the checksum of UDP is wrong");
    let message = Message::from_vec(udp.payload()).context("it is no DNS message")?;
    let (id, port) = (message.metadata.id, header.destination_port);
    ensure!(id == !port, "the id is {id}");
    ensure!(message.metadata.message_type == MessageType::Response, "it is no response");
    if message.metadata.truncation {
        return Ok(Some("some cut short"));
    }
    let found = (u16::from(message.metadata.response_code), u16::try_from(message.answers.len())?);
    ensure!(found == expected, "RCODE and number of answers are {found:?} instead of {expected:?}");
    let name = message.queries.first().context("no question")?.name().to_ascii();
    let wanted = case.asked.name();
    let is_asked = match case.asked {
        Asked::Numbered => name.len() == wanted.len() + 1 && name.ends_with(&format!(".{}.", super::cases::ZONE)),
        _ => name == format!("{wanted}."),
    };
    ensure!(is_asked, "it answers for {name}");
    if case.asked == Asked::Largest && udp.payload().len() != LARGEST {
        return Ok(Some("another length"));
    }
    let cookie = message.edns.as_ref().is_some_and(|edns| edns.options().get(10.into()).is_some());
    Ok((case.cookie && !cookie).then_some("no server cookie"))
}

fn monotonic() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(Duration::from(now).as_nanos().try_into()?)
}

/// The template of a case's questions, and what differs.
fn questions(cable: &Cable, case: &Case) -> Result<Questions> {
    let message = case.message()?;
    let [server, client] = cable.addresses(case.ipv6);
    let mut frame = packet(cable, [client, server], [0, 53], &message);
    let mut ends = [client, server];
    let udp = if case.ipv6 { UDP6 } else { UDP4 } as usize;
    let mut questions = Questions::zeroed();
    questions.interface = cable.client_index.into();
    questions.udp = udp as u64;
    questions.names = case.names().into();
    if case.asked == Asked::Numbered {
        let place = udp + HEADER + NUMBER_PLACE;
        ensure!(case.ipv6 || place == NUMBER4, "the number is elsewhere");
        questions.number = place as u64;
        frame.iter_mut().skip(place).take(8).for_each(|byte| *byte = 0);
    }
    if case.clients > 1 {
        ensure!(!case.ipv6 && case.clients.is_power_of_two(), "so many clients are not to be had");
        (questions.clients, questions.first_client) = ((case.clients - 1).into(), FIRST_CLIENT.into());
        // The checksum and the sender of IPv4's header.
        frame.iter_mut().skip(24).take(6).for_each(|byte| *byte = 0);
        questions.sum4 = sum(frame.get(14..34).unwrap_or_default());
        ends[0] = Ipv4Addr::UNSPECIFIED.into();
    }
    frame.iter_mut().skip(udp + 6).take(2).for_each(|byte| *byte = 0);
    let datagram = frame.get(udp..).unwrap_or_default();
    questions.sum = pseudo(ends[0], ends[1], datagram.len().try_into()?) + sum(datagram);
    ensure!(frame.len() <= QUESTION_BYTES, "a question of {} bytes is too long", frame.len());
    questions.length = frame.len() as u64;
    questions.template.iter_mut().zip(&frame).for_each(|(to, from)| *to = *from);
    Ok(questions)
}

/// What makes responses of a case's questions.
fn constant(case: &Case) -> Result<Constant> {
    let message = case.message()?;
    let question = message.get(..case.question_end()?).unwrap_or_default();
    // QR, AA and RD; one question and four answers.
    let header = [0, 0, 0x85, 0, 0, 1, 0, 4, 0, 0, 0, 0];
    let ttl = TTL_SECONDS.to_be_bytes();
    let mut records = Vec::new();
    for address in ADDRESSES {
        let address: Ipv4Addr = address.parse()?;
        records.extend([&[0xc0, 12, 0, 1, 0, 1], &ttl[..], &[0, 4], &address.octets()].concat());
    }
    let response = [&header[..], question.get(12..).unwrap_or_default(), &records].concat();
    let udp = if case.ipv6 { UDP6 } else { UDP4 };
    let length = (response.len() + HEADER) as u16;
    let [network, network_before] =
        [length, (message.len() + HEADER) as u16].map(|length| if case.ipv6 { length } else { length + 20 });
    // The lengths of UDP count twice, in the header and in the pseudo header.
    let of = |message: &[u8]| sum(message) + 2 * u64::from(((message.len() + HEADER) as u16).to_be());
    let mut constant = Constant::zeroed();
    constant.udp = udp;
    constant.at = udp + (HEADER + question.len()) as u64;
    constant.growth = (response.len() - message.len()) as u64;
    constant.network_length = network.to_be().into();
    constant.network_sum = u64::from(network.to_be()) + u64::from(!network_before.to_be());
    constant.datagram_length = length.to_be().into();
    constant.datagram_sum = of(&response) + u64::from(!fold(of(&message)));
    constant.flags = u16::from_be_bytes([0x85, 0]).to_be().into();
    constant.counts = u64::from_ne_bytes([0, 1, 0, 4, 0, 0, 0, 0]);
    ensure!(records.len() == RECORD_WORDS * 8, "{} bytes of records", records.len());
    bytemuck::cast_slice_mut(&mut constant.records).copy_from_slice(&records);
    Ok(constant)
}

/// A frame from the client's end to the server's.
pub fn packet(cable: &Cable, [from, to]: [IpAddr; 2], [from_port, to_port]: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let [server_mac, client_mac] = cable.macs();
    let length = (payload.len() + HEADER) as u16;
    let mut frame = [server_mac, client_mac].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (length + 20).to_be_bytes();
            let head = [&[8, 0, 0x45, 0], &total[..], &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
            frame.extend([&head[..], &from.octets(), &to.octets()].concat());
            let checksum = !fold(sum(frame.get(14..34).unwrap_or_default()));
            frame.splice(24..26, checksum.to_ne_bytes());
        }
        (from, to) => {
            let head = [&[0x86, 0xdd, 0x60, 0, 0, 0], &length.to_be_bytes()[..], &[17, 64]].concat();
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            frame.extend([&head[..], &octets(from), &octets(to)].concat());
        }
    }
    let ports = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    let datagram = [&ports[..], &length.to_be_bytes(), &[0, 0], payload].concat();
    let checksum = !fold(pseudo(from, to, length) + sum(&datagram));
    frame.extend(datagram);
    let place = frame.len() - payload.len() - 2;
    frame.splice(place..place + 2, checksum.to_ne_bytes());
    frame
}

/// Sum of the pseudo header of a datagram of UDP.
fn pseudo(from: IpAddr, to: IpAddr, length: u16) -> u64 {
    let address = |address| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(from) + address(to) + u64::from(u16::from_ne_bytes([0, 17])) + u64::from(length.to_be())
}

/// Sum of 16-bit words as they lie in memory, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| {
        u64::from(u16::from_ne_bytes([
            pair.first().copied().unwrap_or_default(),
            pair.get(1).copied().unwrap_or_default(),
        ]))
    };
    bytes.chunks(2).map(word).sum()
}

fn fold(sum: u64) -> u16 {
    let folded = iter::successors(Some(sum), |sum| (*sum > 0xffff).then(|| (sum & 0xffff) + (sum >> 16)));
    folded.last().unwrap_or_default() as u16
}

/// The time, in microseconds, within which this share of the responses came.
pub fn percentile(times: &[u64], share: f64) -> f64 {
    let total: u64 = times.iter().sum();
    let wanted = (total as f64 * share).ceil() as u64;
    let mut counted = 0;
    let reached = times.iter().position(|count| {
        counted += count;
        counted >= wanted
    });
    // The first time that is counted in the next row.
    let reached = reached.unwrap_or_default() as u64 + 1;
    let nanoseconds = if reached < 32 { reached } else { (16 + reached % 16) << (reached / 16 - 1) };
    nanoseconds as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions::row;

    #[test]
    fn a_row_ends_where_the_next_one_begins() {
        for nanoseconds in (0..100_000).chain([1 << 20, 1 << 30, u64::from(u32::MAX)]) {
            let mut times = vec![0; ROWS as usize];
            times[row(nanoseconds) as usize] = 1;
            let end = percentile(&times, 0.5) * 1_000.0;
            let next = end.round() as u64;
            assert!(next > nanoseconds && row(next) == row(nanoseconds) + 1, "{nanoseconds}: {next}");
        }
    }
}
