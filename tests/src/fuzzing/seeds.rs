//! Inputs to start from: every frame that a test has, alone and with a change of its service's slots.

use super::frame::{Input, Place, Step};
use crate::frames;
use anyhow::Result;

/// What to call an input, and its bytes.
pub type Seed = (String, Vec<u8>);

/// Those of the target `frame`.
pub fn frame() -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for named in frames::all()? {
        let came = |place| Step::Frame { place: Place(place), frame: named.frame.clone() };
        let before = named.before.iter().map(|frame| Step::Frame { place: Place(0), frame: frame.clone() });
        seeds.push((named.name.to_owned(), Input(before.clone().chain([came(0)]).collect()).bytes()));
        // Who had the slots before still has flows; then nobody is known to, and then the flow's backend fails.
        let turn = |previous| Step::Turn { service: u8::MAX, current: 0, previous };
        let fail = Step::Fail { backend: u8::MAX, down: true };
        let changes = [turn(1), came(0x40), turn(3), came(0), fail, came(0)];
        seeds.push((format!("{}_changed", named.name), Input(before.chain(changes).collect()).bytes()));
    }
    Ok(seeds)
}
