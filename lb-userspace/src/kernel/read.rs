//! What a restarted agent finds in the maps.

use super::{
    error::KernelError,
    maps::{BACKEND_WORDS, FLAGS_WORD, Maps, SERVICE_WORDS, on},
};
use crate::model::{
    actual::{Actual, ActualService},
    op::Op,
};
use lb_common::tables::{Backend, DNS, IN_USE, Region, Service};
use std::time::Duration;

impl Maps {
    /// Reads what the maps hold. Adoption windows that are open end at `deadline`. Flows that lead to nothing, as an agent that
    /// was killed may have left them, are forgotten: ids may be given to others from now on.
    pub fn read(&mut self, deadline: Duration) -> Result<Actual, KernelError> {
        let mut actual = Actual::new(self.limits);
        let settings = on("SETTINGS", "read it", self.settings.get(&0, 0))?.0;
        actual.settings = (settings.layout != 0).then_some(settings);
        for entry in self.interfaces.iter() {
            let (index, interface) = on("INTERFACES", "read it", entry)?;
            actual.interfaces.insert(index, interface.0.mac);
        }
        self.read_backends(&mut actual);
        for entry in self.returns.iter() {
            let (own, id) = on("RETURNS", "read it", entry)?;
            actual.returns.insert(own.0, id);
        }
        for entry in self.addresses.iter() {
            let (address, answers) = on("ADDRESSES", "read it", entry)?;
            actual.addresses.insert(address.0, answers);
        }
        self.read_services(&mut actual, deadline)?;
        self.answers.read(&mut actual)?;
        let services: std::collections::HashSet<u32> = actual.services.values().map(|service| service.id).collect();
        self.flows.forget_if(|key, flow| {
            !services.contains(&key.service()) || actual.backends.entry(flow.backend).is_none()
        })?;
        Ok(actual)
    }

    fn read_backends(&self, actual: &mut Actual) {
        for id in 0..self.limits.backends {
            let first = id as usize * BACKEND_WORDS;
            if self.backends.load(first + FLAGS_WORD).is_none_or(|word| word == 0) {
                continue;
            }
            let mut words = [0; BACKEND_WORDS];
            (first..).zip(&mut words).for_each(|(index, word)| *word = self.backends.load(index).unwrap_or_default());
            let backend: Backend = bytemuck::cast(words);
            if backend.flags & IN_USE != 0 {
                actual.record(&Op::PutBackend { id, backend });
            }
        }
    }

    fn read_services(&mut self, actual: &mut Actual, deadline: Duration) -> Result<(), KernelError> {
        let ids: Vec<_> = self.service_ids.iter().collect();
        for entry in ids {
            let (endpoint, id) = on("SERVICE_IDS", "read it", entry)?;
            let mut words = [0; SERVICE_WORDS];
            let first = id as usize * SERVICE_WORDS;
            (first..).zip(&mut words).for_each(|(index, word)| *word = self.services.load(index).unwrap_or_default());
            let service: Service = bytemuck::cast(words);
            let is_dns = service.flags & DNS != 0;
            let slots = if is_dns { Vec::new() } else { self.slots.read(Region::from_word(service.region))? };
            actual.service_ids.take(id);
            // What the table was made from is not in the kernel: the first plan finds out what it is not made like.
            let service = ActualService::new(id, &service, &slots.into(), None, deadline);
            actual.services.insert(endpoint.0, service);
            actual.note_service(&endpoint.0);
        }
        Ok(())
    }
}
