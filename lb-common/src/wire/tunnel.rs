//! Ethernet and an outer IP header by words, as a tunnel writes them.

use super::header;
use zerocopy::byteorder::little_endian::{U16 as Le16, U32 as Le32, U64 as Le64};

header!(
    /// With an outer IPv4 header.
    Front4 = 34 {
        /// Its start.
        words: [Le64; 4],
        /// Its end.
        end: Le16,
    }
);

header!(
    /// With an outer IPv6 header.
    Front6 = 54 {
        /// Its start.
        words: [Le64; 6],
        /// What follows.
        end: Le32,
        /// Its end.
        rest: Le16,
    }
);
