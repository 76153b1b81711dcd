//! What the balancer's path puts into a tunnel comes out of it as it was.

use crate::frames::{MIXES, Outcome, Tunneled, outcome, tables};
use bytemuck::Zeroable as _;
use lb_common::{
    decap,
    host::{Buffer, HostTables},
    path::{steer, tunnel::Sources},
    tables::{Backend, Endpoint, Known, LAYOUT, Region, Service, Settings, Slot},
    verdict::{Verdict, Why},
};

const TCP: u8 = 6;
const PORT: u16 = 443;
const INTERFACE: u32 = 2;
const BALANCER: [u8; 6] = [2, 3, 3, 3, 3, 3];
const ROUTER: [u8; 6] = [2, 4, 4, 4, 4, 4];

/// Tables of a balancer with one service and one backend.
fn balancer(packet: &Tunneled, prefix: u8) -> HostTables {
    let service = Endpoint::new(packet.inner.service(), TCP, PORT);
    let own = Endpoint::new(packet.outer.backend(), TCP, PORT);
    let backend = Backend::new(own, service, 0).via(INTERFACE, ROUTER, BALANCER, 1_500);
    let mut tables = HostTables::default();
    tables.settings = Some(Settings { layout: LAYOUT, known: Known::ALL, ..Settings::zeroed() });
    tables.service_ids.insert(service, 0);
    tables.services.insert(0, Service { region: Region { first: 0, slots: 1 }.word(), ..Service::zeroed() });
    tables.slots.insert(0, Slot::clean(0));
    tables.backends.insert(0, backend.through(Sources::new(packet.outer.balancer(), prefix)));
    tables
}

#[test]
fn what_goes_into_a_tunnel_comes_out_of_it() {
    for (outer, inner, why) in MIXES {
        for tags in 0..=2 {
            for mark in 0..4 {
                // Senders vary within the prefix.
                let prefix = if outer.balancer().is_ipv4() { 16 } else { 96 };
                let packet = Tunneled::new(outer, inner).tagged(tags);
                let before = packet.taken_out(mark);
                let mut buffer = Buffer::new(&before, INTERFACE, 64, 0);
                let verdict = steer(&mut buffer, &balancer(&packet, prefix));
                assert_eq!(verdict, Verdict::Transmit(Why::ForwardedTunnel), "{packet:?}");
                assert_eq!(buffer.bytes().len(), before.len() + outer.header());

                let source = packet.outer.balancer().to_string();
                let backend = tables(&[(&source, prefix.into())]);
                let after = [&ROUTER[..], &BALANCER, &before[12..]].concat();
                let expected = Outcome::expected(decap::verdict::Verdict::Pass(why), after);
                assert_eq!(outcome(buffer.bytes(), &backend), expected, "{packet:?} with mark {mark}");
            }
        }
    }
}
