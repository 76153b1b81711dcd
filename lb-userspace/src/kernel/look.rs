//! Looking at single things in the maps as the path does, for an explanation. Nothing is written.

use super::{
    error::KernelError,
    maps::{BACKEND_WORDS, Maps, SERVICE_WORDS, on},
    memory::Memory,
    plain::Plain,
};
use crate::model::explain::Key;
use aya::maps::MapError;
use lb_common::{
    host::HostTables,
    tables::{
        Backend, Endpoint, FlowKey, FlowTable, Service, Tables as _, Tracked,
        answers::{BLOCK_WORDS, BODY_WORDS},
    },
};

impl Maps {
    /// Puts what a key stands for into tables in memory, if it is there.
    pub fn look(&self, key: &Key, tables: &mut HostTables) -> Result<(), KernelError> {
        match *key {
            Key::Settings => {
                // The kernel has an element, whether it was written or not.
                tables.settings = found("SETTINGS", self.settings.get(&0, 0))?.map(|settings| settings.0);
            }
            Key::Interface(index) => {
                let interface = found("INTERFACES", self.interfaces.get(&index, 0))?;
                let device = found("DEVICES", self.devices.get(index, 0))?;
                tables.interfaces.extend(interface.zip(device).map(|(interface, _)| (index, interface.0)));
            }
            Key::Address(address) => {
                let answers = found("ADDRESSES", self.addresses.get(&Plain(address), 0))?;
                tables.addresses.extend(answers.map(|answers| (address, answers)));
            }
            Key::Service(endpoint) => self.look_at_service(endpoint, tables)?,
            Key::Slot(index) => tables.slots.extend(self.slots.look(index).map(|slot| (index, slot))),
            Key::Flow(table, key) => self.look_at_flow(table, &key, tables)?,
            Key::Backend(id) => {
                let backend = words::<BACKEND_WORDS>(&self.backends, id).map(bytemuck::cast::<_, Backend>);
                tables.backends.extend(backend.map(|backend| (id, backend)));
            }
            Key::Returning(own) => {
                let id = found("RETURNS", self.returns.get(&Plain(own), 0))?;
                tables.returns.extend(id.map(|id| (own, id)));
            }
            Key::Dns => tables.dns = self.answers.look_at_settings(),
            Key::Bucket(block) => self.look_at_answers(block.into(), 1, tables),
            Key::AnswerSlot(block, number) => {
                self.look_at_answers(u64::from(block) + u64::from(number / BLOCK_WORDS), 1, tables);
            }
            Key::Body(block) => self.look_at_answers(block.into(), BODY_WORDS / BLOCK_WORDS as usize, tables),
            Key::Turn(row) => {
                let turn = self.answers.look_at_turn(row)?;
                tables.with_turn(row, |word| turn.into_iter().for_each(|turn| word.set(turn)));
            }
            Key::Tokens(bucket) => {
                let tokens = self.answers.look_at_tokens(bucket)?;
                tables.with_tokens(bucket, |word| word.set(tokens));
            }
        }
        Ok(())
    }

    fn look_at_service(&self, endpoint: Endpoint, tables: &mut HostTables) -> Result<(), KernelError> {
        if let Some(id) = found("SERVICE_IDS", self.service_ids.get(&Plain(endpoint), 0))? {
            tables.service_ids.insert(endpoint, id);
            let service = words::<SERVICE_WORDS>(&self.services, id).map(bytemuck::cast::<_, Service>);
            tables.services.extend(service.map(|service| (id, service)));
        }
        Ok(())
    }

    /// Blocks of the answer space, as far as they are of one chunk: what the path reads of a body beyond it is never an answer's.
    fn look_at_answers(&self, block: u64, blocks: usize, tables: &mut HostTables) {
        let words = self.answers.look(block * u64::from(BLOCK_WORDS), blocks * BLOCK_WORDS as usize);
        if let Some((block, words)) = u32::try_from(block).ok().zip(words) {
            tables.answers.write(block, &words);
        }
    }

    fn look_at_flow(&self, table: FlowTable, key: &FlowKey, tables: &HostTables) -> Result<(), KernelError> {
        let (name, map) = match table {
            FlowTable::Established => ("FLOWS", &self.flows.established),
            FlowTable::HalfOpen => ("HALF_OPEN", &self.flows.half_open),
        };
        if let Some(word) = found(name, map.get(&Plain(*key), 0))? {
            tables.track(table, key, Tracked::from_word(word));
        }
        Ok(())
    }
}

/// What may be missing.
fn found<T>(map: &'static str, result: Result<T, MapError>) -> Result<Option<T>, KernelError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(None),
        result => on(map, "read it", result).map(Some),
    }
}

/// The words of an array's element, if the array is so long.
fn words<const WORDS: usize>(memory: &Memory, index: u32) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for (at, word) in (index as usize * WORDS..).zip(&mut words) {
        *word = memory.load(at)?;
    }
    Some(words)
}
