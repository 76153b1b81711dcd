//! One step of a change to the tables.

use super::{
    answers::{
        index::{Index, Place},
        placed::Put,
        wanted::Reached,
    },
    desired::Balanced,
};
use lb_common::tables::{
    Address, Backend, Endpoint, FlowKey, FlowTable, Region, Service, Settings, Slot, answers::DnsSettings,
};
use std::{sync::Arc, time::Duration};

/// One step of a change to the tables. As far as a packet can see, each is done wholly or not at all, but for the next hop of a
/// [`Backend`] in use, and for [`Op::StoreSlots`], which is done slot by slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes what holds for every packet.
    PutSettings(Box<Settings>),
    /// Writes what holds for every question, word by word.
    PutDns(DnsSettings),
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
    /// Writes a backend under an id that is new, or the state and the next hop of one that is in use.
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
        /// The slots.
        slots: Arc<[Slot]>,
    },
    /// Adds a service or a DNS address.
    PutService {
        /// Its id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
        /// What is written.
        service: Service,
        /// Its slots, which are written already.
        slots: Arc<[Slot]>,
        /// What is reached with it.
        reached: Option<Arc<Balanced>>,
    },
    /// Writes what a service is; its table stays.
    SetFlags {
        /// Its id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
        /// [`Service::flags`].
        flags: u32,
    },
    /// Swaps a service's table for another one.
    SwapTable {
        /// The service's id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
        /// The table's place.
        region: Region,
        /// Its slots, which are written already.
        slots: Arc<[Slot]>,
        /// What is reached with it.
        reached: Option<Arc<Balanced>>,
    },
    /// Stores slots of a table in use, one after the other.
    StoreSlots {
        /// The service's endpoint.
        endpoint: Endpoint,
        /// The table's place.
        region: Region,
        /// The slots, each with its number in the table; there may be none.
        slots: Arc<[(u32, Slot)]>,
        /// When the adoption windows end that these slots open.
        deadline: Duration,
        /// What is reached with it, if anything is.
        reached: Option<Arc<Balanced>>,
    },
    /// Removes a service or a DNS address. Its id stays taken until its flows are forgotten.
    RemoveService {
        /// Its id.
        id: u32,
        /// Where it is.
        endpoint: Endpoint,
    },
    /// Writes an index of answers beside the one before, for all answers that come from now on. No DNS address looks into it yet.
    WriteIndex {
        /// The index.
        index: Index,
        /// Nothing of what the one before leads to is in it, or will be.
        afresh: bool,
    },
    /// Has a DNS address look into another index.
    SwapIndex {
        /// The address's id.
        id: u32,
        /// The address.
        endpoint: Endpoint,
        /// The index.
        region: Region,
    },
    /// Writes an answer, and then the entry that leads to it.
    PutAnswer(Arc<Put>),
    /// Frees the entry of an answer.
    RemoveAnswer {
        /// Hash of the question.
        question: u64,
        /// The entry's place.
        place: Place,
        /// Block of the index.
        index: u32,
    },
    /// Notes that there is no room for an answer, or that it is no longer wanted.
    LeaveAnswer {
        /// Hash of the question.
        question: u64,
        /// There is no room.
        is_left: bool,
    },
    /// Notes up to where the wanted answers have been followed.
    FollowAnswers {
        /// Up to there.
        reached: Option<Reached>,
        /// Everything has been followed at least once.
        is_built: bool,
    },
    /// Answers for an address.
    PutAddress {
        /// The address.
        address: Address,
        /// What is answered: [`lb_common::tables::ON_LINK`], [`lb_common::tables::ECHO`].
        answers: u64,
    },
    /// No longer does so.
    RemoveAddress {
        /// The address.
        address: Address,
    },
    /// Forgets the flows of services that are removed and of backends that nothing leads to. A grace period has passed since.
    Forget {
        /// Ids of services, which are free afterwards.
        services: Arc<[u32]>,
        /// Ids of backends.
        backends: Arc<[u32]>,
    },
    /// Forgets these flows, which no packet looks for any more.
    ForgetFlows {
        /// Which ones, and where they are.
        flows: Arc<[(FlowTable, FlowKey)]>,
    },
    /// Waits until no program run sees what was taken away before. What was freed may be used again afterwards.
    Grace,
}
