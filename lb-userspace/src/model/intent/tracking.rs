//! For how long flows are known.

use super::{DRAIN_SECONDS, Tracking, part::Problems};
use crate::config::{Place, schema};
use std::{ops::RangeInclusive, time::Duration};

/// Who is silent for longer than a day at the very moment of a change may be moved by it.
const ADOPT: RangeInclusive<u32> = 1..=86_400;
/// Shorter ones would take a flow for over between two packets of it.
const TCP_IDLE: RangeInclusive<u32> = 60..=604_800;
const UDP_IDLE: RangeInclusive<u32> = 10..=86_400;

const DEFAULT_ADOPT: u32 = 300;
/// 2 hours and 4 minutes, after which a NAT may forget a flow: RFC 5382 section 5.
const DEFAULT_TCP_IDLE: u32 = 7_440;
/// 5 minutes: RFC 4787 section 4.3.
const DEFAULT_UDP_IDLE: u32 = 300;

/// Reads the times. What something is wrong with has its default.
pub(super) fn read(file: &schema::File, problems: &mut Problems<'_>) -> Tracking {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let Some(spanned) = &file.tracking else {
        return Tracking {
            adopt: seconds(DEFAULT_ADOPT),
            tcp_idle: seconds(DEFAULT_TCP_IDLE),
            udp_idle: seconds(DEFAULT_UDP_IDLE),
            drain: None,
        };
    };
    let written = spanned.get_ref();
    let mut part = problems.part(Place::Tracking, Some(spanned.span()));
    let drain = written.drain_seconds.as_ref();
    let drain = drain.and_then(|drain| part.number("drain_seconds", drain, DRAIN_SECONDS)).map(seconds);
    let mut time =
        |key, written, range, default| seconds(part.number_or(key, written, range, default).unwrap_or(default));
    Tracking {
        adopt: time("adopt_seconds", &written.adopt_seconds, ADOPT, DEFAULT_ADOPT),
        tcp_idle: time("tcp_idle_seconds", &written.tcp_idle_seconds, TCP_IDLE, DEFAULT_TCP_IDLE),
        udp_idle: time("udp_idle_seconds", &written.udp_idle_seconds, UDP_IDLE, DEFAULT_UDP_IDLE),
        drain,
    }
}
