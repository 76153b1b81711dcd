//! What of the answer space can be read: what the indexes of DNS addresses lead to.

use lb_common::{
    host::HostTables,
    tables::{
        DNS, Region, Tables as _,
        answers::{AnswerSlot, BLOCK_WORDS, Leads},
    },
};
use lb_userspace::model::answers::{
    image::{body_length, head_of},
    pages::{PAGE_BLOCKS, Run},
};
use std::collections::BTreeSet;

/// The indexes that DNS addresses look into.
fn indexes(tables: &HostTables) -> BTreeSet<Region> {
    let dns = tables.services.values().filter(|service| service.flags & DNS != 0);
    dns.map(|service| Region::from_word(service.region)).filter(|index| index.slots > 0).collect()
}

/// The blocks that a reader can get to from the indexes of all DNS addresses, but for these.
pub fn behind_indexes(tables: &HostTables) -> Vec<Run> {
    let mut runs = Vec::new();
    for block in indexes(tables).into_iter().flat_map(|index| index.first..index.first + index.slots) {
        for entry in tables.bucket(block).expect("a bucket").iter().filter(|entry| entry.leads != 0) {
            let leads = Leads::from_word(entry.leads);
            let mut bodies = vec![AnswerSlot { block: leads.block, generation: leads.generation }];
            if leads.slots > 0 {
                runs.push(Run { block: leads.block, blocks: u32::from(leads.slots).div_ceil(BLOCK_WORDS) });
                let slot = |slot: u16| tables.answer_slot(leads.block, slot.into()).expect("a slot");
                bodies = (0..leads.slots).map(slot).collect();
            }
            for AnswerSlot { block, generation } in bodies {
                let head = tables.body(block).and_then(|words| head_of(words)).expect("a body");
                assert_eq!(head.generation, generation, "what leads to a body knows it");
                assert_ne!(generation, 0);
                runs.push(Run { block, blocks: (body_length(&head) as u32).div_ceil(BLOCK_WORDS) });
            }
        }
    }
    runs
}

/// The pages in which anything can be read, as an agent that comes finds them.
pub fn pages(tables: &HostTables) -> impl Iterator<Item = Run> {
    let indexes = indexes(tables).into_iter().map(|index| Run { block: index.first, blocks: index.slots });
    let runs = indexes.chain(behind_indexes(tables));
    let pages = runs.flat_map(|run| run.block / PAGE_BLOCKS..=(run.block + run.blocks - 1) / PAGE_BLOCKS);
    let pages: BTreeSet<u32> = pages.collect();
    pages.into_iter().map(|page| Run { block: page * PAGE_BLOCKS, blocks: PAGE_BLOCKS })
}
