//! Sizes of the maps.

use super::{Limits, part::Problems};
use crate::config::{Place, schema};
use std::ops::RangeInclusive;

/// What the config can ask for: more than a machine of today has memory for is a slip of the pen.
const SERVICES: RangeInclusive<u32> = 16..=1_000_000;
const BACKENDS: RangeInclusive<u32> = 16..=4_000_000;
const FLOWS: RangeInclusive<u32> = 1_024..=16_000_000;
/// What the chunks of the answer space have room for is the most.
const ANSWERS_MEGABYTES: RangeInclusive<u32> = 1..=1_024;

/// Reads the sizes. What something is wrong with has its default.
pub(super) fn read(file: &schema::File, problems: &mut Problems<'_>) -> Limits {
    let default = Limits::default();
    let Some(spanned) = &file.limits else {
        return default;
    };
    let written = spanned.get_ref();
    let mut part = problems.part(Place::Limits, Some(spanned.span()));
    let mut limit = |key, written, range, default| part.number_or(key, written, range, default).unwrap_or(default);
    Limits {
        services: limit("services", &written.services, SERVICES, default.services),
        backends: limit("backends", &written.backends, BACKENDS, default.backends),
        flows: limit("flows", &written.flows, FLOWS, default.flows),
        answers_megabytes: limit(
            "answers_megabytes",
            &written.answers_megabytes,
            ANSWERS_MEGABYTES,
            default.answers_megabytes,
        ),
    }
}
