//! Forwarding of any packet: what leaves is what etherparse builds for the other end.

use crate::support::{
    BACKEND_MAC, DRIVER, LAN, LAN_MAC, Outcome, ROUTER_MAC, SIDES, V4, WAN, WAN_MAC, cases,
    frames::{FlowFrame, Transport},
    outcome,
    sound::sound,
    steered,
    tables::{Build, FIRST, MTU, dsr, empty, endpoint, nat, route_via},
};
use lb_common::{
    host::HostTables,
    tables::{Backend, NAT, Route, Traffic},
    verdict::{Verdict, Why},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A packet, and the two endpoints of a NAT backend.
#[derive(Clone, Debug)]
struct Case {
    asked: FlowFrame,
    backend: SocketAddr,
}

fn case() -> impl Strategy<Value = Case> {
    let ends = (any::<bool>(), any::<[(u128, u16); 3]>());
    let transport = prop_oneof![
        2 => Just(Transport::Tcp),
        2 => Just(Transport::Udp),
        1 => Just(Transport::UdpWithoutChecksum),
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (ends, transport, 0_u8.., any::<u16>(), any::<u8>(), payload).prop_map(
        |((four, ends), transport, hops, mark, class, payload)| {
            let [client, service, backend] = ends.map(|(bits, port)| {
                let address: IpAddr =
                    if four { Ipv4Addr::from(bits as u32).into() } else { Ipv6Addr::from(bits).into() };
                SocketAddr::new(address, port)
            });
            let transport = if four || transport == Transport::Tcp { transport } else { Transport::Udp };
            let asked = FlowFrame { hops, mark, class, payload, ..FlowFrame::asked(client, service, transport) };
            Case { asked, backend }
        },
    )
}

impl Case {
    fn tables(&self) -> HostTables {
        let protocol = self.asked.transport.number();
        let backend = Backend::new(endpoint(self.backend, protocol), endpoint(self.asked.to, protocol), NAT);
        let backend = backend.via(LAN, BACKEND_MAC, LAN_MAC, MTU);
        let tables = empty().with_service(self.asked.to, protocol, &[backend]);
        tables.with_route(self.asked.from.ip(), route_via(WAN))
    }
}

proptest! {
    #![proptest_config(cases(384))]

    #[test]
    fn a_forwarded_packet_is_the_one_built_for_the_backend(case in case()) {
        let sent = FlowFrame {
            receiver: BACKEND_MAC,
            sender: LAN_MAC,
            to: case.backend,
            hops: case.asked.hops.saturating_sub(1),
            ..case.asked.clone()
        };
        let (verdict, frame) = steered(&case.asked.bytes(), &case.tables());
        if case.asked.hops <= 1 {
            prop_assert_eq!((verdict, frame), (Verdict::Pass(Why::HopsExceeded), case.asked.bytes()));
        } else {
            prop_assert_eq!(sound(&frame), Some(true));
            prop_assert_eq!((verdict, frame), (Verdict::Redirect(Why::ForwardedNat, LAN), sent.bytes()));
        }
    }

    #[test]
    fn a_reply_is_the_one_built_for_the_client(case in case(), by_stack in any::<bool>()) {
        let reply = FlowFrame { from: case.backend, to: case.asked.from, ..case.asked.clone() };
        let (least, restored, expected) = if by_stack {
            (1, FlowFrame { from: case.asked.to, ..reply.clone() }, Verdict::Pass(Why::ReturnedByStack))
        } else {
            let hops = reply.hops.saturating_sub(1);
            let sent = FlowFrame { receiver: ROUTER_MAC, sender: WAN_MAC, from: case.asked.to, hops, ..reply.clone() };
            (2, sent, Verdict::Transmit(Why::Returned))
        };
        let tables = if by_stack { case.tables().with_route(reply.to.ip(), Route::Stack) } else { case.tables() };
        let (verdict, frame) = steered(&reply.bytes(), &tables);
        if reply.hops < least {
            prop_assert_eq!((verdict, frame), (Verdict::Pass(Why::HopsExceeded), reply.bytes()));
        } else {
            prop_assert_eq!(sound(&frame), Some(true));
            prop_assert_eq!((verdict, frame), (expected, restored.bytes()));
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for side in SIDES {
        for transport in [Transport::Tcp, Transport::Udp] {
            let protocol = transport.number();
            let tables = empty().with_service(side.service(), protocol, &[nat(&side, protocol, LAN)]);
            let mut frame = FlowFrame::to_service(&side, transport).bytes();
            let last = frame.len() - 1;
            frame[last] ^= 1;
            let (verdict, sent) = steered(&frame, &tables);
            assert_eq!(verdict, Verdict::Redirect(Why::ForwardedNat, LAN));
            assert_eq!((sound(&frame), sound(&sent)), (Some(false), Some(false)), "the receiver must find out");
        }
    }
    let tables = empty().with_service(V4.service(), 6, &[nat(&V4, 6, LAN)]);
    let mut frame = FlowFrame::to_service(&V4, Transport::Tcp).bytes();
    frame[24] ^= 1;
    let (_, sent) = steered(&frame, &tables);
    assert_eq!(sound(&sent), Some(false));
}

/// The way there and the way back end where they began, hops aside.
#[test]
fn a_backend_without_a_mapping_sees_its_own_endpoint_and_the_client_the_services() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 6, &[nat(&side, 6, LAN)]);
        let tables = tables.with_route(side.client, route_via(WAN));
        let asked = FlowFrame::to_service(&side, Transport::Tcp);
        let (_, there) = steered(&asked.bytes(), &tables);
        let seen = FlowFrame { receiver: BACKEND_MAC, sender: LAN_MAC, to: side.backend(), hops: 56, ..asked.clone() };
        assert_eq!(there, seen.bytes());
        let reply = FlowFrame { receiver: LAN_MAC, sender: BACKEND_MAC, from: seen.to, to: seen.from, ..seen };
        let (_, back) = steered(&reply.bytes(), &tables);
        let got =
            FlowFrame { receiver: ROUTER_MAC, sender: WAN_MAC, from: asked.to, to: asked.from, hops: 55, ..asked };
        assert_eq!(back, got.bytes());
    }
}

#[test]
fn traffic_is_counted_by_backend_and_frame() {
    let tables =
        empty().with_service(V4.service(), 6, &[dsr(&V4, 6, LAN)]).with_service(V4.service(), 17, &[nat(&V4, 17, LAN)]);
    let tcp = FlowFrame::to_service(&V4, Transport::Tcp).bytes();
    let udp = FlowFrame { payload: vec![0; 3], ..FlowFrame::to_service(&V4, Transport::Udp) }.bytes();
    let mut last: Option<Outcome> = None;
    for frame in [&tcp, &udp, &tcp, &udp, &tcp] {
        last = Some(outcome(frame, WAN, DRIVER, &tables));
    }
    let last = last.unwrap();
    assert_eq!(last.counts, BTreeMap::from([(Why::ForwardedDsr, 3), (Why::ForwardedNat, 2)]));
    let traffic = |packets, frame: &[u8]| Traffic { packets, bytes: packets * frame.len() as u64 };
    assert_eq!(last.traffic, BTreeMap::from([(FIRST, traffic(3, &tcp)), (FIRST + 1, traffic(2, &udp))]));
}
