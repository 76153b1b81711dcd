//! One step of a change to the tables.

use super::desired::Member;
use lb_common::tables::{Address, Answer, AnswerKey, Backend, Endpoint, Region, Service, Settings};
use std::sync::Arc;

/// One step of a change to the tables. Each is done wholly or not at all as far as a packet can see, but for the next hop of
/// a [`Backend`] in use.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes what holds for every packet.
    PutSettings(Settings),
    /// Lets frames come in and leave by an interface.
    PutInterface {
        /// Its index.
        index: u32,
        /// Its MAC address.
        mac: [u8; 6],
    },
    /// Forgets an interface.
    RemoveInterface {
        /// Its index.
        index: u32,
    },
    /// Writes a backend under an id that is new, or the next hop of one that is in use.
    PutBackend {
        /// Its id.
        id: u32,
        /// What is written.
        backend: Backend,
    },
    /// Gives a backend's id back. Nothing may lead to it any more.
    RemoveBackend {
        /// Its id.
        id: u32,
    },
    /// Restores the service's address on what comes from a backend.
    PutReturn {
        /// The backend's own endpoint.
        own: Endpoint,
        /// Its id.
        id: u32,
    },
    /// No longer does so.
    RemoveReturn {
        /// The backend's own endpoint.
        own: Endpoint,
    },
    /// Writes a slot table to a place where none is in use.
    WriteTable {
        /// The place.
        region: Region,
        /// Ids of backends, one a slot.
        slots: Arc<[u32]>,
    },
    /// Adds a service or a DNS address.
    PutService {
        /// Its id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
        /// What is written.
        service: Service,
        /// What its table was made from.
        members: Arc<[Member]>,
    },
    /// Swaps a service's table for another one.
    SwapTable {
        /// The service's id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
        /// The table's place.
        region: Region,
        /// What the table was made from.
        members: Arc<[Member]>,
    },
    /// Removes a service or a DNS address.
    RemoveService {
        /// Its id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
    },
    /// Answers for an address on the link.
    Claim {
        /// The address.
        address: Address,
    },
    /// No longer does so.
    Unclaim {
        /// The address.
        address: Address,
    },
    /// Writes an answer to a free place, then makes its key lead there.
    PutAnswer {
        /// What finds it.
        key: AnswerKey,
        /// Its place.
        place: u32,
        /// What is written.
        answer: Arc<Answer>,
    },
    /// Makes a key lead nowhere.
    RemoveAnswer {
        /// What found the answer.
        key: AnswerKey,
    },
    /// Waits until no program run sees what was taken away before. What was freed may be used again afterwards.
    Grace,
}
