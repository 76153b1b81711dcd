//! Does [`Op`]s on tables in memory, where the path runs as in the kernel.

use super::{
    actual::Actual,
    answers::index::Place,
    flows::{FlowCounts, Sweep},
    intent::Tracking,
    op::Op,
};
use lb_common::{
    host::HostTables,
    tables::{
        Interface, Tables as _,
        answers::{BLOCK_WORDS, Entry},
    },
};

/// Does one step.
pub fn apply(tables: &mut HostTables, op: &Op) {
    match op {
        Op::PutSettings(settings) => tables.settings = Some(**settings),
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
            tables.slots.extend((region.first..).zip(slots.iter().copied()));
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
        Op::SetFlags { id, flags, .. } => {
            if let Some(service) = tables.services.get_mut(id) {
                service.flags = *flags;
            }
        }
        Op::StoreSlots { region, slots, .. } => {
            tables.slots.extend(slots.iter().map(|(number, slot)| (region.first + number, *slot)));
        }
        Op::RemoveService { id, endpoint } => {
            tables.service_ids.remove(endpoint);
            tables.services.remove(id);
        }
        Op::PutDns(dns) => tables.dns = Some(*dns),
        Op::WriteIndex { index, .. } => {
            let words: Vec<u64> = index.all().flat_map(bytemuck::cast::<_, [u64; BLOCK_WORDS as usize]>).collect();
            tables.answers.write(index.run().block, &words);
        }
        Op::SwapIndex { id, region, .. } => {
            if let Some(service) = tables.services.get_mut(id) {
                service.region = region.word();
            }
        }
        Op::PutAnswer(put) => {
            put.words.iter().for_each(|(block, words)| tables.answers.write(*block, words));
            write_entry(tables, put.index, put.place, put.entry);
        }
        Op::RemoveAnswer { question, place, index } => {
            write_entry(tables, *index, *place, Entry { question: *question, leads: 0 });
        }
        Op::PutAddress { address, answers } => {
            tables.addresses.insert(*address, *answers);
        }
        Op::RemoveAddress { address } => {
            tables.addresses.remove(address);
        }
        Op::Forget { services, backends } => {
            for (table, key, flow) in tables.flows() {
                if services.contains(&key.service()) || backends.contains(&flow.backend) {
                    tables.forget(table, &key);
                }
            }
        }
        Op::ForgetFlows { flows } => flows.iter().for_each(|(table, key)| tables.forget(*table, key)),
        Op::LeaveAnswer { .. } | Op::FollowAnswers { .. } | Op::Grace => (),
    }
}

fn write_entry(tables: &mut HostTables, index: u32, place: Place, entry: Entry) {
    let block = index + place.bucket;
    let mut bucket = tables.bucket(block).copied().unwrap_or_default();
    bucket.get_mut(place.number as usize).into_iter().for_each(|place| *place = entry);
    tables.answers.write(block, &bytemuck::cast::<_, [u64; BLOCK_WORDS as usize]>(bucket));
}

/// Sweeps the flow tables: see [`super::flows`].
pub fn sweep(tables: &mut HostTables, actual: &mut Actual, tracking: Tracking) -> FlowCounts {
    let mut sweep = look(tables, actual, tracking);
    let steps = sweep.clean();
    if !steps.is_empty() {
        for op in steps.iter().chain([&Op::Grace]) {
            apply(tables, op);
            actual.record(op);
        }
        sweep = look(tables, actual, tracking);
    }
    let (forget, counts) = sweep.end();
    forget.iter().for_each(|op| apply(tables, op));
    counts
}

fn look<'a>(tables: &HostTables, actual: &'a Actual, tracking: Tracking) -> Sweep<'a> {
    let mut sweep = Sweep::new(actual, tracking, tables.seconds);
    tables.flows().iter().for_each(|(table, key, flow)| sweep.look(*table, key, *flow));
    sweep
}
