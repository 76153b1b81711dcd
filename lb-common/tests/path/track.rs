//! Tracked flows: which backend a packet of a changed slot goes to, and what the flow tables hold afterwards.

use crate::{
    mutations::{seeds, tables_of_all},
    support::{
        DRIVER, LAN, SIDES, Side, V4, V6, WAN,
        datagram::{Body, Datagram, Extension},
        frames::Transport,
        outcome, steered,
        tables::{Build, FIRST, NOW, dsr, empty},
    },
};
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::{
        Address, Backend, CLEAN, CLOSED, DOWN, Endpoint, FlowKey, FlowTable, Fragment, FragmentKey, Interface, MOVES,
        NOBODY, Route, ScratchWork, Service, Settings, Slot, Tables, Tracked, Traffic,
        answers::{AnswerSlot, BODY_WORDS, Bucket, DnsSettings, SHOWN_WORDS},
    },
    verdict::{Verdict, Why},
};
use std::{cell::Cell, collections::BTreeMap, net::SocketAddr};

/// The backends: of a slot's current owner, its previous one, and one that had it earlier.
const CURRENT: u32 = FIRST;
const PREVIOUS: u32 = FIRST + 1;
const EARLIER: u32 = FIRST + 2;
const SEEN: u32 = NOW as u32 - 50;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Syn,
    /// With flags that begin nothing and end nothing.
    Tcp(u8),
    /// With FIN or RST.
    Ends(u8),
    Udp,
    /// To a service with `udp = "move"`.
    Moves,
    /// An Initial packet of this version.
    Quic(u32),
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const QUIC_1: u32 = 1;
const QUIC_2: u32 = 0x6b33_43cf;

const ALL: [Says; 13] = [
    Says::Syn,
    Says::Tcp(ACK),
    Says::Tcp(ACK | SYN),
    Says::Tcp(0),
    Says::Tcp(ACK | 8),
    Says::Ends(1),
    Says::Ends(ACK | 1),
    Says::Ends(4),
    Says::Ends(ACK | 4),
    Says::Udp,
    Says::Moves,
    Says::Quic(QUIC_1),
    Says::Quic(QUIC_2),
];

impl Says {
    fn transport(self) -> Transport {
        if matches!(self, Self::Syn | Self::Tcp(_) | Self::Ends(_)) { Transport::Tcp } else { Transport::Udp }
    }

    fn begins(self) -> bool {
        matches!(self, Self::Syn | Self::Moves | Self::Quic(_))
    }

    fn packet(self, side: &Side) -> Datagram {
        let mut packet = Datagram::to_service(side, self.transport());
        match (&mut packet.body, self) {
            (Body::Tcp { flags, .. }, Self::Syn) => *flags = SYN,
            (Body::Tcp { flags, .. }, Self::Tcp(other) | Self::Ends(other)) => *flags = other,
            (Body::Udp { payload, .. }, Self::Quic(version)) => {
                let first = if version == QUIC_1 { 0xc3 } else { 0xd3 };
                *payload = [&[first][..], &version.to_be_bytes(), &[8; 40]].concat();
            }
            _ => (),
        }
        packet
    }
}

/// What is known of the flow before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    table: FlowTable,
    backend: u32,
    closing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    says: Says,
    slot: Slot,
    known: Option<Known>,
    /// Which backends have failed.
    down: [bool; 3],
}

impl Case {
    fn is_down(&self, id: u32) -> bool {
        self.down[(id - FIRST) as usize]
    }

    fn tables(&self, side: &Side) -> HostTables {
        let protocol = self.says.transport().number();
        let backends = self.down.map(|down| {
            let backend = dsr(side, protocol, LAN);
            Backend { flags: backend.flags | if down { DOWN } else { 0 }, ..backend }
        });
        let mut tables = empty().with_service(side.service(), protocol, &backends);
        tables.slots.values_mut().for_each(|slot| *slot = self.slot);
        if self.says == Says::Moves {
            tables.services.values_mut().for_each(|service| service.flags |= MOVES);
        }
        if let Some(Known { table, backend, closing }) = self.known {
            tables.track(table, &key(side, &tables), Tracked { backend, seen: SEEN, closing });
        }
        tables
    }

    /// The rule once more: who gets the packet, and what is known of the flow afterwards.
    fn expected(&self) -> (u32, Option<(Known, u32)>) {
        let unchanged = self.known.map(|known| (known, SEEN));
        let current = self.slot.current;
        if self.slot.previous == CLEAN {
            return (current, unchanged);
        }
        let ends = matches!(self.says, Says::Ends(_));
        let now = |table, backend, closing| (backend, Some((Known { table, backend, closing }, NOW as u32)));
        if let Some(known) = self.known {
            // Any later packet that is no SYN promotes it.
            let table = if self.says == Says::Syn { known.table } else { FlowTable::Established };
            return if self.is_down(known.backend) || known.closing && self.says == Says::Syn {
                // Its backend has failed, or its ports begin another connection.
                if current == NOBODY { (NOBODY, unchanged) } else { now(table, current, ends) }
            } else {
                now(table, known.backend, known.closing || ends)
            };
        }
        if self.slot.previous == CLOSED {
            return (current, None);
        }
        if self.says.begins() {
            return if current == NOBODY { (NOBODY, None) } else { now(FlowTable::HalfOpen, current, false) };
        }
        // Untracked at current, it is there already for whatever the slot becomes next.
        if self.is_down(PREVIOUS) { (current, None) } else { now(FlowTable::Established, PREVIOUS, ends) }
    }
}

fn key(side: &Side, tables: &HostTables) -> FlowKey {
    let service = tables.services.values().next().unwrap();
    let [from, to] = [side.client(), side.service()].map(|end| Endpoint::new(end.ip(), 0, end.port()));
    FlowKey::new(&from, &to, service.id)
}

/// All flows with what is known of them, and when they were seen.
fn known(tables: &HostTables) -> Vec<(Known, u32)> {
    let known = |(table, _, Tracked { backend, seen, closing })| (Known { table, backend, closing }, seen);
    tables.flows().into_iter().map(known).collect()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut before = vec![None];
    for table in [FlowTable::Established, FlowTable::HalfOpen] {
        for backend in [CURRENT, PREVIOUS, EARLIER] {
            before.extend([false, true].map(|closing| Some(Known { table, backend, closing })));
        }
    }
    for says in ALL {
        for known in &before {
            if known.is_some_and(|known| known.closing && says.transport() == Transport::Udp) {
                continue; // UDP has no end.
            }
            for current in [CURRENT, NOBODY] {
                for previous in [CLEAN, CLOSED, PREVIOUS] {
                    for down in 0..8 {
                        let down = [down & 1 != 0, down & 2 != 0, down & 4 != 0];
                        cases.push(Case { says, slot: Slot { current, previous }, known: *known, down });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn the_rule_holds_for_every_packet_slot_and_flow() {
    for (index, case) in cases().into_iter().enumerate() {
        let side = SIDES[index % 2];
        let tables = case.tables(&side);
        let packet = case.says.packet(&side);
        let (backend, after) = case.expected();
        let outcome = outcome(&packet.bytes(), WAN, DRIVER, &tables);
        if backend == NOBODY {
            assert_eq!(outcome.verdict, Verdict::Pass(Why::NoBackend), "{case:?}");
            assert_eq!(outcome.traffic, BTreeMap::new());
        } else {
            assert_eq!(outcome.verdict, Verdict::Redirect(Why::ForwardedDsr, LAN), "{case:?}");
            assert_eq!(outcome.traffic.keys().copied().collect::<Vec<_>>(), [backend], "{case:?}");
        }
        assert_eq!(known(&tables), after.into_iter().collect::<Vec<_>>(), "{case:?}");
        assert!(tables.flows().iter().all(|(_, flow, _)| *flow == key(&side, &tables)));
    }
}

/// An error about a flow goes to whom the flow belongs, and is no packet of it.
#[test]
fn an_error_goes_to_the_owner_of_the_flow_and_changes_no_table() {
    for (index, case) in cases().into_iter().enumerate() {
        let side = SIDES[index % 2];
        let tables = case.tables(&side);
        let about = Datagram::reply(&side, case.says.transport()).with_source(side.service());
        let error = Datagram::error(side.router, &about, if side.client.is_ipv4() { 3 } else { 1 }, 1, 60);
        let owner = match (case.slot.previous, case.known) {
            (CLEAN, _) => case.slot.current,
            (_, Some(known)) if !case.is_down(known.backend) => known.backend,
            (PREVIOUS, _) if !case.is_down(PREVIOUS) => PREVIOUS,
            _ => case.slot.current,
        };
        let before = known(&tables);
        let outcome = outcome(&error.bytes(), WAN, DRIVER, &tables);
        if owner == NOBODY {
            assert_eq!(outcome.verdict, Verdict::Pass(Why::NoBackend), "{case:?}");
        } else {
            assert_eq!(outcome.verdict, Verdict::Redirect(Why::ErrorForwarded, LAN), "{case:?}");
            assert_eq!(outcome.traffic.keys().copied().collect::<Vec<_>>(), [owner], "{case:?}");
        }
        assert_eq!(known(&tables), before, "{case:?}");
    }
}

/// Both tables can know a flow for a moment, in which one CPU has promoted it and another has not yet forgotten it.
#[test]
fn the_table_of_established_flows_is_asked_first() {
    for side in SIDES {
        let slot = Slot { current: CURRENT, previous: CLOSED };
        let case = Case { says: Says::Tcp(ACK), slot, known: None, down: [false; 3] };
        let tables = case.tables(&side);
        for (table, backend) in [(FlowTable::Established, PREVIOUS), (FlowTable::HalfOpen, EARLIER)] {
            tables.track(table, &key(&side, &tables), Tracked { backend, seen: SEEN, closing: false });
        }
        let (_, _) = steered(&case.says.packet(&side).bytes(), &tables);
        assert_eq!(tables.traffic().keys().copied().collect::<Vec<_>>(), [PREVIOUS]);
    }
}

/// Which backend got a packet.
fn taker(packet: &Datagram, tables: &HostTables) -> Option<u32> {
    let before = tables.traffic();
    let (verdict, _) = steered(&packet.bytes(), tables);
    let after = tables.traffic();
    let taker = after.into_iter().find(|(id, traffic)| before.get(id) != Some(traffic)).map(|(id, _)| id);
    assert_eq!(taker.is_none(), verdict == Verdict::Pass(Why::NoBackend), "{verdict:?}");
    taker
}

fn set(tables: &mut HostTables, slot: Slot) {
    tables.slots.values_mut().for_each(|other| *other = slot);
}

/// From before a change, through the window and after it, to another change: a connection stays where it began.
#[test]
fn a_connection_stays_where_it_began_through_two_changes() {
    for side in SIDES {
        let case = |says| Case { says, slot: Slot::clean(PREVIOUS), known: None, down: [false; 3] };
        let mut tables = case(Says::Syn).tables(&side);
        let [syn, data, fin] = [Says::Syn, Says::Tcp(ACK), Says::Ends(ACK | 1)].map(|says| says.packet(&side));
        assert_eq!((taker(&syn, &tables), tables.flows().len()), (Some(PREVIOUS), 0), "a clean slot");
        set(&mut tables, Slot { current: CURRENT, previous: PREVIOUS });
        let other = syn.clone().with_source(SocketAddr::new(side.client, 7));
        let others_data = data.clone().with_source(SocketAddr::new(side.client, 7));
        assert_eq!(taker(&data, &tables), Some(PREVIOUS), "adopted");
        assert_eq!(taker(&other, &tables), Some(CURRENT), "a new one");
        assert_eq!(taker(&others_data, &tables), Some(CURRENT));
        set(&mut tables, Slot { current: EARLIER, previous: CURRENT });
        assert_eq!([taker(&data, &tables), taker(&others_data, &tables)], [Some(PREVIOUS), Some(CURRENT)]);
        set(&mut tables, Slot { current: EARLIER, previous: CLOSED });
        assert_eq!([taker(&data, &tables), taker(&others_data, &tables)], [Some(PREVIOUS), Some(CURRENT)]);
        assert_eq!(taker(&fin, &tables), Some(PREVIOUS), "until it ends");
        assert_eq!(taker(&data, &tables), Some(PREVIOUS), "and while its last packets come");
        assert_eq!(taker(&syn, &tables), Some(EARLIER), "the same ports begin anew");
        assert_eq!(taker(&data, &tables), Some(EARLIER));
        // It fails.
        tables.backends.get_mut(&EARLIER).unwrap().flags |= DOWN;
        set(&mut tables, Slot { current: CURRENT, previous: CLOSED });
        assert_eq!(taker(&data, &tables), Some(CURRENT));
    }
}

/// A flood of packets that begin connections comes no further than the table that is meant for it.
#[test]
fn only_flows_that_go_on_are_established() {
    for side in SIDES {
        for (says, established) in [(Says::Syn, 0), (Says::Quic(QUIC_1), 50)] {
            let slot = Slot { current: CURRENT, previous: PREVIOUS };
            let tables = Case { says, slot, known: None, down: [false; 3] }.tables(&side);
            let packet = |port| says.packet(&side).with_source(SocketAddr::new(side.client, port));
            for port in 1..=50 {
                assert_eq!(taker(&packet(port), &tables), Some(CURRENT));
            }
            let count = |table| tables.flows().iter().filter(|(other, ..)| *other == table).count();
            assert_eq!((count(FlowTable::HalfOpen), count(FlowTable::Established)), (50, 0));
            // A repeated SYN says no more than the first one; a second datagram does.
            for port in 1..=50 {
                assert_eq!(taker(&packet(port), &tables), Some(CURRENT));
            }
            assert_eq!(count(FlowTable::Established), established);
            assert_eq!(count(FlowTable::HalfOpen), 50 - established);
        }
    }
}

/// Long headers of other types and versions, short ones, and what is too short to say so, belong to their flow's earlier packets.
#[test]
fn only_an_initial_packet_of_a_known_version_begins_a_quic_connection() {
    let first = |byte: u8, version: u32| [&[byte][..], &version.to_be_bytes(), &[8; 40]].concat();
    let mut payloads = vec![
        (first(0xc0, QUIC_1), true),
        (first(0xcf, QUIC_1), true),
        (first(0xd0, QUIC_2), true),
        (first(0xdf, QUIC_2), true),
        (first(0xd0, QUIC_1), false), // 0-RTT
        (first(0xe0, QUIC_1), false), // Handshake
        (first(0xf0, QUIC_1), false), // Retry
        (first(0xc0, QUIC_2), false), // Retry
        (first(0xe0, QUIC_2), false), // 0-RTT
        (first(0xf0, QUIC_2), false), // Handshake
        (first(0xc0, 0), false),      // Version negotiation
        (first(0xc0, 0xff00_001d), false),
        (first(0x40, QUIC_1), false), // A short header
        (first(0x80, QUIC_1), false), // Without the fixed bit
        (Vec::new(), false),
    ];
    let initial = first(0xc0, QUIC_1);
    payloads.extend((1..5).map(|length| (initial[..length].to_vec(), false)));
    payloads.push((initial[..5].to_vec(), true));
    for side in SIDES {
        let slot = Slot { current: CURRENT, previous: PREVIOUS };
        let case = Case { says: Says::Udp, slot, known: None, down: [false; 3] };
        for (payload, begins) in &payloads {
            let packet = Datagram::to_service(&side, Transport::Udp).with_payload(payload);
            let expected = if *begins { CURRENT } else { PREVIOUS };
            assert_eq!(taker(&packet, &case.tables(&side)), Some(expected), "{payload:x?}");
        }
    }
}

/// A short packet in a frame with the rest of an Initial packet behind it was taken for one.
#[test]
fn what_pads_a_frame_begins_no_quic_connection() {
    let initial = Says::Quic(QUIC_1).packet(&V4);
    let Body::Udp { payload, .. } = &initial.body else { panic!("not UDP") };
    for side in SIDES {
        for length in 0..5 {
            let slot = Slot { current: CURRENT, previous: PREVIOUS };
            let tables = Case { says: Says::Udp, slot, known: None, down: [false; 3] }.tables(&side);
            let packet = Datagram::to_service(&side, Transport::Udp).with_payload(&payload[..length]);
            let frame = [packet.bytes(), payload[length..].to_vec()].concat();
            assert_eq!(steered(&frame, &tables).0.why(), Why::ForwardedDsr);
            assert_eq!(tables.traffic().keys().copied().collect::<Vec<_>>(), [PREVIOUS], "{length} bytes");
        }
    }
}

/// Flags and payload are found behind options and extension headers as well.
#[test]
fn a_packet_says_the_same_in_any_shape() {
    for side in SIDES {
        for says in ALL {
            for packet in crate::support::shapes::shapes(&says.packet(&side)) {
                let slot = Slot { current: CURRENT, previous: PREVIOUS };
                let case = Case { says, slot, known: None, down: [false; 3] };
                let tables = case.tables(&side);
                assert_eq!(taker(&packet, &tables), Some(case.expected().0), "{packet:?}");
                assert_eq!(known(&tables), case.expected().1.into_iter().collect::<Vec<_>>(), "{packet:?}");
            }
        }
        // The first fragment of a datagram too, which tells the rest its way.
        let slot = Slot { current: CURRENT, previous: PREVIOUS };
        for says in [Says::Udp, Says::Moves, Says::Quic(QUIC_2)] {
            let case = Case { says, slot, known: None, down: [false; 3] };
            let tables = case.tables(&side);
            let frames = says.packet(&side).fragments(7, &[16, 24]);
            frames.iter().for_each(|frame| drop(steered(frame, &tables)));
            let traffic = tables.traffic();
            assert_eq!(traffic.keys().copied().collect::<Vec<_>>(), [case.expected().0]);
            assert_eq!(traffic.values().next().map(|traffic| traffic.packets), Some(3));
            assert_eq!(known(&tables), case.expected().1.into_iter().collect::<Vec<_>>());
        }
    }
}

/// Flows are told by both ports, the client's address and the service.
#[test]
fn flows_are_tracked_apart() {
    for side in SIDES {
        let slot = Slot { current: CURRENT, previous: PREVIOUS };
        let mut tables = Case { says: Says::Syn, slot, known: None, down: [false; 3] }.tables(&side);
        tables = tables.with_service(SocketAddr::new(side.service, 0), 6, &[dsr(&side, 6, LAN)]);
        set(&mut tables, slot);
        let data = Says::Tcp(ACK).packet(&side);
        let packets = [
            data.clone(),
            data.clone().with_source(SocketAddr::new(side.client, 7)),
            data.clone().with_source(SocketAddr::new(side.router, 40_000)),
            data.clone().with_destination(SocketAddr::new(side.service, 444)),
            data.with_destination(SocketAddr::new(side.service, 445)),
        ];
        for (index, packet) in packets.iter().enumerate() {
            for _ in 0..2 {
                let (verdict, _) = steered(&packet.bytes(), &tables);
                assert_eq!(verdict.why(), Why::ForwardedDsr);
                assert_eq!(tables.flows().len(), index + 1);
            }
        }
    }
}

/// The clock's seconds are kept in 31 bits, and nothing spills into the flags.
#[test]
fn a_flow_is_seen_at_any_second() {
    for seconds in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, u64::MAX] {
        let slot = Slot { current: CURRENT, previous: PREVIOUS };
        let mut tables = Case { says: Says::Udp, slot, known: None, down: [false; 3] }.tables(&V4);
        tables.seconds = seconds;
        for _ in 0..2 {
            assert_eq!(taker(&Says::Udp.packet(&V4), &tables), Some(PREVIOUS));
            let expected = Known { table: FlowTable::Established, backend: PREVIOUS, closing: false };
            assert_eq!(known(&tables), [(expected, seconds as u32 & 0x7fff_ffff)]);
        }
    }
}

/// Tables that nobody may ask for a flow.
struct Untracked<'a>(&'a HostTables);

impl Tables for Untracked<'_> {
    fn with_flow<R>(&self, table: FlowTable, key: &FlowKey, _: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        panic!("{table:?} was asked for {key:?}")
    }
    fn track(&self, table: FlowTable, key: &FlowKey, flow: Tracked) {
        panic!("{table:?} was told of {key:?}: {flow:?}")
    }
    fn forget(&self, table: FlowTable, key: &FlowKey) {
        panic!("{table:?} had to forget {key:?}")
    }

    fn settings(&self) -> Option<&Settings> {
        self.0.settings()
    }
    fn interface(&self, index: u32) -> Option<&Interface> {
        self.0.interface(index)
    }
    fn answers_for(&self, address: &Address) -> u64 {
        self.0.answers_for(address)
    }
    fn service(&self, endpoint: &Endpoint) -> Option<&Service> {
        self.0.service(endpoint)
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.0.slot(index)
    }
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.0.fragment(key)
    }
    fn remember(&self, key: &FragmentKey, fragment: Fragment) {
        self.0.remember(key, fragment);
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.0.backend(id)
    }
    fn returning(&self, own: &Endpoint) -> Option<u32> {
        self.0.returning(own)
    }
    fn route(&self, interface: u32, from: &Endpoint, to: &Endpoint, length: u16) -> Route {
        self.0.route(interface, from, to, length)
    }
    fn dns(&self) -> Option<&DnsSettings> {
        self.0.dns()
    }
    fn bucket(&self, block: u32) -> Option<&Bucket> {
        self.0.bucket(block)
    }
    fn answer_slot(&self, block: u32, number: u32) -> Option<AnswerSlot> {
        self.0.answer_slot(block, number)
    }
    fn body(&self, block: u32) -> Option<&[u64; BODY_WORDS]> {
        self.0.body(block)
    }
    fn once(&self, word: &u64) -> u64 {
        self.0.once(word)
    }
    fn with_turn<R>(&self, row: u32, work: impl FnOnce(&Cell<u32>) -> R) -> Option<R> {
        self.0.with_turn(row, work)
    }
    fn with_tokens<R>(&self, bucket: u32, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        self.0.with_tokens(bucket, work)
    }
    fn with_shown<R>(&self, row: u32, work: impl FnOnce(&[Cell<u64>; SHOWN_WORDS]) -> R) -> Option<R> {
        self.0.with_shown(row, work)
    }
    fn sample(&self, question: u64) {
        self.0.sample(question);
    }
    fn nanoseconds(&self) -> u64 {
        self.0.nanoseconds()
    }
    fn seconds(&self) -> u64 {
        self.0.seconds()
    }
    fn with_scratch<W: ScratchWork>(&self, work: W) -> Option<W::Output> {
        self.0.with_scratch(work)
    }
    fn forwarded(&self, backend: u32, bytes: u64) {
        self.0.forwarded(backend, bytes);
    }
    fn count(&self, why: Why) {
        self.0.count(why);
    }
}

#[test]
fn packets_of_clean_slots_touch_no_table() {
    let tables = tables_of_all();
    assert!(tables.slots.values().all(|slot| slot.previous == CLEAN));
    let mut frames = seeds();
    for side in SIDES {
        frames.extend(ALL.map(|says| says.packet(&side).bytes()));
    }
    for frame in frames {
        let _ = steer(&mut Buffer::new(&frame, WAN, 256, 256), &Untracked(&tables));
    }
    let forwarded: u64 = tables.traffic().values().map(|traffic: &Traffic| traffic.packets).sum();
    assert!(forwarded > 500, "only {forwarded} packets went to backends");
    assert!(tables.flows().is_empty());
}

/// Who is on the link, and what DNS answers, is told without a look at any flow; so is an extension header's end.
#[test]
fn packets_to_no_service_touch_no_table() {
    let slot = Slot { current: CURRENT, previous: PREVIOUS };
    for side in [V4, V6] {
        let tables = Case { says: Says::Syn, slot, known: None, down: [false; 3] }.tables(&side);
        let elsewhere = Says::Syn.packet(&side).with_destination(side.host());
        let mut packets = vec![elsewhere.clone()];
        if !side.client.is_ipv4() {
            packets.push(elsewhere.with_extensions(&[Extension::hop_by_hop()]));
        }
        for packet in packets {
            let verdict = steer(&mut Buffer::new(&packet.bytes(), WAN, 0, 0), &Untracked(&tables));
            assert_eq!(verdict, Verdict::Pass(Why::NoService));
        }
    }
}
