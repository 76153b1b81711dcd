//! Does [`Op`]s on tables in memory, where the path runs as in the kernel.

use super::op::Op;
use lb_common::{
    host::HostTables,
    tables::{Interface, Slot},
};

/// Does one step.
pub fn apply(tables: &mut HostTables, op: &Op) {
    match op {
        Op::PutSettings(settings) => tables.settings = Some(*settings),
        Op::PutInterface { index, mac } => {
            tables.interfaces.insert(*index, Interface { mac: *mac, zero: [0; 2] });
        }
        Op::RemoveInterface { index } => {
            tables.interfaces.remove(index);
        }
        Op::PutBackend { id, backend } => {
            tables.backends.insert(*id, *backend);
        }
        Op::RemoveBackend { id } => {
            tables.backends.remove(id);
        }
        Op::PutReturn { own, id } => {
            tables.returns.insert(*own, *id);
        }
        Op::RemoveReturn { own } => {
            tables.returns.remove(own);
        }
        Op::WriteTable { region, slots } => {
            let slots = slots.iter().map(|backend| Slot { backend: *backend, zero: 0 });
            tables.slots.extend((region.first..).zip(slots));
        }
        Op::PutService { id, endpoint, service, .. } => {
            tables.services.insert(*id, *service);
            tables.service_ids.insert(*endpoint, *id);
        }
        Op::SwapTable { id, region, .. } => {
            if let Some(service) = tables.services.get_mut(id) {
                service.region = region.word();
            }
        }
        Op::RemoveService { id, endpoint } => {
            tables.service_ids.remove(endpoint);
            tables.services.remove(id);
        }
        Op::Claim { address } => {
            tables.claims.insert(*address, ());
        }
        Op::Unclaim { address } => {
            tables.claims.remove(address);
        }
        Op::PutAnswer { key, place, answer } => {
            tables.answers.insert(*place, **answer);
            tables.answer_places.insert(*key, *place);
        }
        Op::RemoveAnswer { key } => {
            tables.answer_places.remove(key);
        }
        Op::Grace => (),
    }
}
