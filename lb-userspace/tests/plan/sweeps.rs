//! What a sweep finds: which flows are over, and what that means for their slots.

use crate::world::{IDLE, Server, World, config, own, service};
use lb_common::{
    hash,
    tables::{CLOSED, Endpoint, FlowKey, FlowTable, Region, Slot, Tables as _, Tracked},
};
use lb_userspace::model::tracking::Table;

/// A world with one service, of whose slots one is closed, and a flow in this slot with its backends: who has it, and another.
struct Closed {
    world: World,
    key: FlowKey,
    current: u32,
    other: u32,
}

impl Closed {
    fn new(protocol: &str) -> Self {
        let servers = [1, 2].map(|number| Server { service: 0, number, weight: 1 });
        let text = config(&["dsr"], &servers, "");
        let text = text.replace("port = 80\n", &format!("port = 80\nprotocol = \"{protocol}\"\ncheck = \"web\"\n"));
        let text = text.replace("[tunnel]", "udp_idle_seconds = 20\n[check.web]\nport = 80\n[tunnel]");
        let number = if protocol == "tcp" { 6 } else { 17 };
        let mut world = World::new(&text);
        for server in servers {
            let own = Endpoint::new(own(0, server.number).ip(), number, 80);
            world.set_up(own, true);
        }
        world.tables.seconds = 10_000;
        world.settle(usize::MAX);
        let client = Endpoint::new([10, 200, 0, 1].into(), number, 4_000);
        let to = Endpoint::new(service(0).ip(), number, 80);
        let (id, region) = {
            let service = world.tables.service(&to).unwrap();
            (service.id, Region::from_word(service.region))
        };
        let key = FlowKey::new(&client, &to, id);
        let place = hash::slot(hash::flow(&world.tables.settings.unwrap().keys, key.words()), region.slots);
        let mut slots: Vec<Slot> = world.actual.services[&to].table.as_ref().unwrap().slots().to_vec();
        let slot = &mut slots[place as usize];
        slot.previous = CLOSED;
        let current = slot.current;
        world.tables.slots.insert(region.first + place, *slot);
        let table = Table::new(region, slots.into(), world.now());
        world.actual.services.get_mut(&to).unwrap().table = Some(table);
        Self { world, key, current, other: 1 - current }
    }

    /// Sweeps with one flow that was seen so many seconds ago; whether the slot stays closed, the entry stays, and the flow counts.
    fn sweep(&mut self, backend: u32, age: u32, closing: bool) -> (bool, bool, bool) {
        let seen = (self.world.tables.seconds as u32).wrapping_sub(age);
        self.world.tables.track(FlowTable::Established, &self.key, Tracked { backend, seen, closing });
        self.world.sweep();
        let counted = self.world.counts.of.contains_key(&backend);
        (self.world.changed() > 0, !self.world.tables.flows().is_empty(), counted)
    }
}

const KEPT: (bool, bool, bool) = (true, true, true);
const OVER: (bool, bool, bool) = (false, false, false);

#[test]
fn a_live_flow_elsewhere_keeps_the_slot() {
    let mut closed = Closed::new("tcp");
    assert_eq!(closed.sweep(closed.other, 0, false), KEPT);
    assert_eq!(closed.sweep(closed.other, IDLE as u32, false), KEPT);
    assert_eq!(closed.sweep(closed.other, IDLE as u32 + 1, false), OVER);
}

#[test]
fn a_flow_at_who_has_the_slot_need_not_be_known() {
    let mut closed = Closed::new("tcp");
    assert_eq!(closed.sweep(closed.current, 0, false), OVER);
}

#[test]
fn an_ended_connection_has_two_minutes() {
    let mut closed = Closed::new("tcp");
    assert_eq!(closed.sweep(closed.other, 120, true), KEPT);
    assert_eq!(closed.sweep(closed.other, 121, true), OVER);
}

#[test]
fn datagrams_have_their_own_limit() {
    let mut closed = Closed::new("udp");
    assert_eq!(closed.sweep(closed.other, 20, false), KEPT);
    assert_eq!(closed.sweep(closed.other, 21, false), OVER);
}

/// The path's clock and the agent's are read one after the other.
#[test]
fn a_flow_seen_a_moment_later_is_not_an_old_one() {
    let mut closed = Closed::new("tcp");
    assert_eq!(closed.sweep(closed.other, u32::MAX, false), KEPT);
    // Entries have 31 bits of the seconds.
    closed.world.tables.seconds = (1 << 31) + 5;
    assert_eq!(closed.sweep(closed.other, 10, false), KEPT);
}

#[test]
fn a_flow_of_a_failed_backend_is_none() {
    let mut closed = Closed::new("tcp");
    let server = closed.world.server(Some(closed.other)).unwrap();
    closed.world.set_up(server, false);
    closed.world.settle(usize::MAX);
    assert_eq!(closed.sweep(closed.other, 0, false), OVER);
}

#[test]
fn what_leads_to_nothing_is_forgotten() {
    let mut closed = Closed::new("tcp");
    let stray = Tracked { backend: 9, seen: 10_000, closing: false };
    closed.world.tables.track(FlowTable::HalfOpen, &closed.key, stray);
    let stranger = FlowKey { tail: closed.key.tail | 7 << 32, ..closed.key };
    closed.world.tables.track(FlowTable::Established, &stranger, Tracked { backend: closed.other, ..stray });
    assert_eq!(closed.sweep(closed.other, 0, false), KEPT);
    assert_eq!(closed.world.tables.flows().len(), 1);
    assert_eq!(closed.world.counts.tracked, 1);
}
