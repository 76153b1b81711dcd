//! Packets of every shape in every forward mode, there and back: what leaves is what is built for the other end.

use crate::{
    support::{
        BACKEND_MAC, DRIVER, LAN, SIDES, Side, V4, V6, WAN,
        datagram::{Body, Datagram},
        frames::{Transport, padded},
        outcome,
        shapes::shapes,
        sound::sound,
        steered,
        tables::{Build, FIRST, MTU, dsr, empty, endpoint, mac_of, nat, route_via, tunnel},
    },
    tunnel::wrapped,
};
use lb_common::{
    host::HostTables,
    tables::{Backend, NAT, Route, Traffic},
    verdict::{Verdict, Why},
};
use std::{collections::BTreeMap, net::SocketAddr};

/// Every family with every transport that it has.
fn kinds() -> Vec<(Side, Transport)> {
    let mut kinds = vec![(V4, Transport::UdpWithoutChecksum)];
    for side in SIDES {
        kinds.extend([Transport::Tcp, Transport::Udp].map(|transport| (side, transport)));
    }
    kinds
}

/// A service on this port, or on all, with one backend.
fn tables(at: SocketAddr, transport: Transport, backend: Backend) -> HostTables {
    empty().with_service(at, transport.number(), &[backend])
}

#[test]
fn a_packet_of_any_shape_reaches_a_dsr_backend_with_other_mac_addresses() {
    for (side, transport) in kinds() {
        let tables = tables(side.service(), transport, dsr(&side, transport.number(), LAN));
        for asked in shapes(&Datagram::to_service(&side, transport)) {
            let got = steered(&asked.bytes(), &tables);
            let expected = Verdict::Redirect(Why::ForwardedDsr, LAN);
            assert_eq!(got, (expected, asked.delivered(LAN).bytes()), "{asked:?}");
        }
    }
}

#[test]
fn a_packet_of_any_shape_reaches_a_nat_backend_at_its_own_endpoint() {
    for (side, transport) in kinds() {
        let tables = tables(side.service(), transport, nat(&side, transport.number(), LAN));
        for asked in shapes(&Datagram::to_service(&side, transport)) {
            let sent = asked.translated(side.backend(), LAN).bytes();
            assert_eq!(sound(&sent), Some(true));
            let got = steered(&asked.bytes(), &tables);
            assert_eq!(got, (Verdict::Redirect(Why::ForwardedNat, LAN), sent), "{asked:?}");
        }
    }
}

#[test]
fn a_reply_of_any_shape_reaches_the_client_from_the_service() {
    for (side, transport) in kinds() {
        let tables = tables(side.service(), transport, nat(&side, transport.number(), LAN));
        let by_stack = tables.clone().with_route(side.client, Route::Stack);
        let tables = tables.with_route(side.client, route_via(WAN));
        for reply in shapes(&Datagram::reply(&side, transport)) {
            let sent = reply.restored(side.service(), WAN).bytes();
            assert_eq!(sound(&sent), Some(true));
            let got = outcome(&reply.bytes(), LAN, DRIVER, &tables);
            assert_eq!((got.verdict, got.frame), (Verdict::Redirect(Why::Returned, WAN), sent), "{reply:?}");

            let sent = reply.clone().with_source(side.service()).bytes();
            let got = outcome(&reply.bytes(), LAN, DRIVER, &by_stack);
            assert_eq!((got.verdict, got.frame), (Verdict::Pass(Why::ReturnedByStack), sent), "{reply:?}");
        }
    }
}

#[test]
fn a_packet_of_any_shape_reaches_a_tunnels_end_behind_an_outer_header() {
    for (side, transport) in kinds() {
        for outer in SIDES {
            let tables = tables(side.service(), transport, tunnel(&side, &outer, transport.number(), LAN));
            for asked in shapes(&Datagram::to_service(&side, transport)) {
                let sent = wrapped(&asked, outer.tunnel, outer.backend, LAN);
                let got = steered(&asked.bytes(), &tables);
                assert_eq!(got, (Verdict::Redirect(Why::ForwardedTunnel, LAN), sent), "{asked:?}");
            }
        }
    }
}

#[test]
fn hops_end_at_nat_alone_and_in_any_shape() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let route = |tables: HostTables| tables.with_route(side.client, route_via(WAN));
        let translating = route(tables(side.service(), transport, nat(&side, protocol, LAN)));
        let others = [dsr(&side, protocol, LAN), tunnel(&side, &V4, protocol, LAN), tunnel(&side, &V6, protocol, LAN)];
        for packet in [Datagram::to_service(&side, transport), Datagram::reply(&side, transport)] {
            for packet in shapes(&packet) {
                for hops in [0, 1] {
                    let frame = Datagram { hops, ..packet.clone() }.bytes();
                    let got = steered(&frame, &translating);
                    assert_eq!(got, (Verdict::Pass(Why::HopsExceeded), frame.clone()), "{packet:?}");
                    if packet.to == side.service {
                        for backend in others {
                            let got = outcome(&frame, WAN, DRIVER, &tables(side.service(), transport, backend));
                            assert!(matches!(got.verdict, Verdict::Redirect(_, LAN)), "{got:?}");
                        }
                    }
                }
            }
        }
        // The kernel takes the hop if it sends the packet on.
        let by_stack =
            tables(side.service(), transport, nat(&side, protocol, LAN)).with_route(side.client, Route::Stack);
        let reply = Datagram { hops: 1, ..Datagram::reply(&side, transport) };
        let sent = reply.clone().with_source(side.service()).bytes();
        assert_eq!(steered(&reply.bytes(), &by_stack), (Verdict::Pass(Why::ReturnedByStack), sent));
        let reply = Datagram { hops: 0, ..reply }.bytes();
        assert_eq!(steered(&reply, &by_stack), (Verdict::Pass(Why::HopsExceeded), reply));
    }
}

#[test]
fn what_pads_a_frame_stays_behind_the_packet() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        for packet in shapes(&Datagram::to_service(&side, transport).with_payload(&[])) {
            for to in [60, 64, 200] {
                let asked = padded(packet.bytes(), to);
                let padding = |sent: Vec<u8>| [&sent[..], &vec![0; asked.len() - packet.bytes().len()]].concat();
                for (backend, sent) in [
                    (dsr(&side, protocol, LAN), packet.delivered(LAN).bytes()),
                    (nat(&side, protocol, LAN), packet.translated(side.backend(), LAN).bytes()),
                    (tunnel(&side, &V6, protocol, LAN), wrapped(&packet, V6.tunnel, V6.backend, LAN)),
                ] {
                    let (_, got) = steered(&asked, &tables(side.service(), transport, backend));
                    assert_eq!(got, padding(sent), "{packet:?}");
                }
            }
        }
    }
}

/// Both ends of an any-port service: the port that the client chose stays, there and back.
#[test]
fn a_service_on_all_ports_keeps_the_port_there_and_back() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let (at, own) = (SocketAddr::new(side.service, 0), SocketAddr::new(side.backend, 0));
        let backend = Backend::new(endpoint(own, protocol), endpoint(at, protocol), NAT);
        let backend = backend.via(LAN, BACKEND_MAC, mac_of(LAN), MTU);
        let tables = tables(at, transport, backend).with_route(side.client, route_via(WAN));
        for port in [1, 443, 7_777, u16::MAX] {
            let to = SocketAddr::new(side.service, port);
            for asked in shapes(&Datagram::to_service(&side, transport).with_destination(to)) {
                let sent = asked.translated(own, LAN);
                assert_eq!(steered(&asked.bytes(), &tables), (Verdict::Redirect(Why::ForwardedNat, LAN), sent.bytes()));
            }
            let from = SocketAddr::new(side.backend, port);
            for reply in shapes(&Datagram::reply(&side, transport).with_source(from)) {
                let sent = reply.restored(at, WAN).bytes();
                assert_eq!(sound(&sent), Some(true));
                assert_eq!(steered(&reply.bytes(), &tables), (Verdict::Transmit(Why::Returned), sent));
            }
        }
        // Nobody looks for a service on all ports while the settings say that there is none.
        let mut unset = tables.clone();
        unset.settings.as_mut().unwrap().features = 0;
        let asked = Datagram::to_service(&side, transport).bytes();
        assert_eq!(steered(&asked, &unset), (Verdict::Pass(Why::NoService), asked));
        // The other transport is another service.
        let other = if transport == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
        let asked = Datagram::to_service(&side, other).bytes();
        assert_eq!(steered(&asked, &tables), (Verdict::Pass(Why::NoService), asked));
    }
}

#[test]
fn a_service_on_a_port_comes_before_the_one_on_all_ports() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let (at, own) = (SocketAddr::new(side.service, 0), SocketAddr::new(side.router, 0));
        let any = Backend::new(endpoint(own, protocol), endpoint(at, protocol), NAT);
        let any = any.via(LAN, BACKEND_MAC, mac_of(LAN), MTU);
        let tables = empty().with_service(side.service(), protocol, &[nat(&side, protocol, LAN)]);
        let tables = tables.with_service(at, protocol, &[any]).with_route(side.client, route_via(WAN));
        let exact = Datagram::to_service(&side, transport);
        let (_, got) = steered(&exact.bytes(), &tables);
        assert_eq!(got, exact.translated(side.backend(), LAN).bytes());
        let other = exact.with_destination(SocketAddr::new(side.service, 444));
        let (_, got) = steered(&other.bytes(), &tables);
        assert_eq!(got, other.translated(own, LAN).bytes());

        // And back.
        let reply = Datagram::reply(&side, transport);
        let (_, got) = steered(&reply.bytes(), &tables);
        assert_eq!(got, reply.restored(side.service(), WAN).bytes());
        let reply = reply.with_source(SocketAddr::new(side.router, 444));
        let (_, got) = steered(&reply.bytes(), &tables);
        assert_eq!(got, reply.restored(at, WAN).bytes());
    }
}

/// A backend is told from another one by its port as well, so that another service of that machine is no reply.
#[test]
fn a_packet_from_another_port_of_a_nat_backend_is_no_reply() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let at = SocketAddr::new(side.host, 0);
        // A service on all ports elsewhere makes the path look for returns on all ports.
        let tables = empty().with_service(side.service(), protocol, &[nat(&side, protocol, LAN)]);
        let tables = tables.with_service(at, protocol, &[]).with_route(side.client, route_via(WAN));
        let reply = Datagram::reply(&side, transport).with_source(SocketAddr::new(side.backend, 22)).bytes();
        assert_eq!(steered(&reply, &tables), (Verdict::Pass(Why::NoService), reply));
    }
}

/// An element of a hash map may be reused while it is read, so that the wrong id comes of the right key.
#[test]
fn a_return_that_leads_to_another_backend_is_not_believed() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let mut other = side.backend();
        other.set_port(9_443);
        let backend = Backend::new(endpoint(other, protocol), endpoint(side.service(), protocol), NAT);
        let mut tables = empty().with_service(side.service(), protocol, &[nat(&side, protocol, LAN), backend]);
        tables = tables.with_route(side.client, route_via(WAN));
        tables.returns.insert(endpoint(side.backend(), protocol), FIRST + 1);
        let reply = Datagram::reply(&side, transport).bytes();
        assert_eq!(steered(&reply, &tables), (Verdict::Pass(Why::NoService), reply));
    }
}

/// Tags are the link's and not counted: what a backend gets is the same with and without.
#[test]
fn traffic_is_counted_without_tags_and_outer_headers() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        for backend in [dsr(&side, protocol, LAN), nat(&side, protocol, LAN), tunnel(&side, &V6, protocol, LAN)] {
            let tables = tables(side.service(), transport, backend);
            let packets = shapes(&Datagram::to_service(&side, transport));
            packets.iter().for_each(|packet| drop(steered(&packet.bytes(), &tables)));
            let bytes = packets.iter().map(|packet| 14 + packet.packet().len() as u64).sum();
            let traffic = Traffic { packets: packets.len() as u64, bytes };
            assert_eq!(tables.traffic(), BTreeMap::from([(FIRST, traffic)]));
        }
    }
}

/// A message of a protocol that has no ports is none of the service's, whatever stands before it.
#[test]
fn other_protocols_pass_in_any_shape() {
    for side in SIDES {
        let tables = tables(side.service(), Transport::Tcp, dsr(&side, 6, LAN));
        for protocol in [2, 47, 50, 51, 89, 132, 135, 139, 140, 253, 255] {
            let body = Body::Other { protocol, bytes: vec![0x55; 40] };
            for packet in shapes(&Datagram::asked(side.client, side.service, body)) {
                let frame = packet.bytes();
                assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::OtherProtocol), frame));
            }
        }
    }
}
