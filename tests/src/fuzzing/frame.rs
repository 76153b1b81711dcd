//! Any frames, one after the other, by tables whose slots and backends change in between.

use super::{frame_laws, owner::slots_of};
use crate::fixture;
use arbitrary::{Arbitrary, Result, Unstructured};
use lb_common::{
    host::HostTables,
    tables::{CLEAN, CLOSED, DOWN, NOBODY, Region, Slot},
    verdict::Why,
};

const MORE: &str = include_str!("fuzz.toml");
/// Slots of a service: enough to differ, and few enough that every frame meets one that has changed.
const SLOTS: u32 = 4;
/// An id of no backend.
const LOST: u32 = 4_000;
/// More steps find nothing that fewer do not, and take longer.
const MOST_STEPS: usize = 48;
/// Longer than any frame of a link without jumbo frames, with what a virtual one may add.
const LONGEST: u16 = 2_048;

/// What happens.
#[derive(Clone, Debug)]
pub struct Input(pub Vec<Step>);

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame comes in.
    Frame {
        /// See [`Place`].
        place: Place,
        /// It.
        frame: Vec<u8>,
    },
    /// The last frame once more, with one byte changed.
    Again {
        /// Which one.
        at: u16,
        /// To what.
        byte: u8,
    },
    /// All slots of a service turn.
    Turn {
        /// Its number; 255: all of them.
        service: u8,
        /// Who has them: the number of one of its backends, or nobody, or one who is lost.
        current: u8,
        /// What they were: likewise, or clean, or closed.
        previous: u8,
    },
    /// A backend fails, or is up again.
    Fail {
        /// Its id; 255: all of them.
        backend: u8,
        /// Whether it has failed.
        down: bool,
    },
    /// A backend's way takes packets of another length.
    Narrow {
        /// Its id.
        backend: u8,
        /// Bytes.
        mtu: u16,
    },
    /// Time goes by.
    Time {
        /// Seconds.
        seconds: u8,
    },
}

/// Where a frame comes in, and whether the same comes again at once: bits 0 and 1 are the interface, 2 and 3 the room in front, 4 and 5 that
/// behind, 6 is for the other one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place(pub u8);

impl Place {
    pub(super) fn interface(self) -> u32 {
        [1, 2, 3, 99][usize::from(self.0 & 3)]
    }

    /// Room in front of the frame and behind it.
    pub(super) fn room(self) -> [usize; 2] {
        [[192, 0, 20, 41][usize::from(self.0 >> 2 & 3)], [2_048, 0, 16, 300][usize::from(self.0 >> 4 & 3)]]
    }

    pub(super) fn is_twice(self) -> bool {
        self.0 & 0x40 != 0
    }
}

/// Field by field from the front, so that seeds can be written: see [`Input::bytes`].
impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut steps = Vec::new();
        while !bytes.is_empty() && steps.len() < MOST_STEPS {
            steps.push(match u8::arbitrary(bytes)? % 8 {
                0..=2 => {
                    let place = Place::arbitrary(bytes)?;
                    let length = usize::from(u16::arbitrary(bytes)? % LONGEST);
                    Step::Frame { place, frame: bytes.bytes(length.min(bytes.len()))?.to_vec() }
                }
                3 => Step::Again { at: u16::arbitrary(bytes)?, byte: u8::arbitrary(bytes)? },
                4 => Step::Turn {
                    service: u8::arbitrary(bytes)?,
                    current: u8::arbitrary(bytes)?,
                    previous: u8::arbitrary(bytes)?,
                },
                5 => Step::Fail { backend: u8::arbitrary(bytes)?, down: u8::arbitrary(bytes)? % 2 == 1 },
                6 => Step::Narrow { backend: u8::arbitrary(bytes)?, mtu: u16::arbitrary(bytes)? },
                _ => Step::Time { seconds: u8::arbitrary(bytes)? },
            });
        }
        Ok(Self(steps))
    }
}

impl Input {
    /// What it is made of.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for step in &self.0 {
            match step {
                Step::Frame { place, frame } => {
                    bytes.extend([0, place.0]);
                    bytes.extend((frame.len() as u16).to_le_bytes());
                    bytes.extend(frame);
                }
                Step::Again { at, byte } => {
                    bytes.push(3);
                    bytes.extend(at.to_le_bytes());
                    bytes.push(*byte);
                }
                Step::Turn { service, current, previous } => bytes.extend([4, *service, *current, *previous]),
                Step::Fail { backend, down } => bytes.extend([5, *backend, u8::from(*down)]),
                Step::Narrow { backend, mtu } => {
                    bytes.extend([6, *backend]);
                    bytes.extend(mtu.to_le_bytes());
                }
                Step::Time { seconds } => bytes.extend([7, *seconds]),
            }
        }
        bytes
    }

    /// Does all of it, and says how the frames left.
    #[must_use]
    pub fn run(&self) -> Vec<Why> {
        thread_local! {
            static TABLES: HostTables = tables();
        }
        let mut tables = TABLES.with(HostTables::clone);
        let (mut last, mut ways) = ((Place(0), Vec::new()), Vec::new());
        for step in &self.0 {
            match step {
                Step::Frame { place, frame } => last = (*place, frame.clone()),
                Step::Again { at, byte } => {
                    if let Some(place) = last.1.get_mut(usize::from(*at)) {
                        *place = *byte;
                    }
                }
                other => {
                    change(&mut tables, other);
                    continue;
                }
            }
            ways.push(frame_laws::steer(&tables, last.0, &last.1));
        }
        ways
    }
}

/// The fixture's tables and more, each service with but a few slots.
fn tables() -> HostTables {
    let mut tables = fixture::tables(MORE).expect("the fixture's tables");
    let mut slots = std::collections::BTreeMap::new();
    for service in tables.services.values_mut() {
        let region = Region::from_word(service.region);
        let fewer = Region { slots: region.slots.min(SLOTS), ..region };
        slots.extend((fewer.first..fewer.first + fewer.slots).map(|index| (index, tables.slots[&index])));
        service.region = fewer.word();
    }
    tables.slots = slots;
    tables
}

fn change(tables: &mut HostTables, step: &Step) {
    match step {
        Step::Turn { service, current, previous } => turn(tables, *service, *current, *previous),
        Step::Fail { backend, down } => {
            let is_meant = |id: u32| *backend == u8::MAX || u32::from(*backend) == id;
            for (_, backend) in tables.backends.iter_mut().filter(|(id, _)| is_meant(**id)) {
                backend.flags = if *down { backend.flags | DOWN } else { backend.flags & !DOWN };
            }
        }
        Step::Narrow { backend, mtu } => {
            if let Some(backend) = tables.backends.get_mut(&u32::from(*backend)) {
                backend.mtu = *mtu;
            }
        }
        Step::Time { seconds } => tables.seconds += u64::from(*seconds),
        Step::Frame { .. } | Step::Again { .. } => (),
    }
}

fn turn(tables: &mut HostTables, service: u8, current: u8, previous: u8) {
    let ids: Vec<_> = tables.service_ids.iter().map(|(endpoint, id)| (*endpoint, *id)).collect();
    if service == u8::MAX {
        return (0..ids.len()).for_each(|service| turn(tables, service as u8, current, previous));
    }
    let (endpoint, id) = ids[usize::from(service) % ids.len()];
    let of_service = tables.backends.iter().filter(|(_, backend)| backend.service == endpoint);
    let mut choice: Vec<u32> = of_service.map(|(id, _)| *id).collect();
    choice.push(LOST);
    let pick = |choice: &[u32], number: u8| choice[usize::from(number) % choice.len()];
    let current = pick(&[&choice[..], &[NOBODY]].concat(), current);
    let previous = pick(&[&choice[..], &[CLEAN, CLOSED]].concat(), previous);
    for index in slots_of(&tables.services[&id]) {
        tables.slots.insert(index, Slot { current, previous });
    }
}
