//! The words of a [`BodyHead`](crate::tables::answers::BodyHead): narrower loads would cost as much, and shifts are nearly free.

use crate::tables::answers::BODY_WORDS;

/// A body, and what lies behind it.
pub type Body = [u64; BODY_WORDS];

/// See [`class`](crate::tables::answers::BodyHead::class), in the first word.
#[inline(always)]
pub const fn class(first: u64) -> u8 {
    (first >> 56) as u8
}

/// What the other words say.
pub trait Fields {
    /// Flags, and the counts of answers and authorities (bits 16 to 47) and additional records.
    fn header(&self) -> u64;
    /// Flags of the message.
    fn flags(&self) -> u16;
    /// Bytes of records.
    fn length(&self) -> usize;
    /// Where the first record is, in bytes.
    fn records(&self) -> usize;
    /// Bytes from one record to the next.
    fn stride(&self) -> usize;
    /// How many records are rotated.
    fn turns(&self) -> u32;
    /// Sum of the records.
    fn sum(&self) -> u64;
    /// Number of TTLs that are aged, and the word where their offsets begin.
    fn ttls(&self) -> (u32, usize);
    /// From which second on they are aged, and in which the first is spent.
    fn times(&self) -> (u64, u64);
}

impl Fields for Body {
    #[inline(always)]
    fn header(&self) -> u64 {
        let [_, header, ..] = self;
        *header
    }

    #[inline(always)]
    fn flags(&self) -> u16 {
        self.header() as u16
    }

    #[inline(always)]
    fn length(&self) -> usize {
        let [_, _, lengths, ..] = self;
        (*lengths & 0xffff) as usize
    }

    #[inline(always)]
    fn records(&self) -> usize {
        let [_, _, lengths, ..] = self;
        (*lengths >> 16 & 0xffff) as usize * 8
    }

    #[inline(always)]
    fn stride(&self) -> usize {
        let [_, _, lengths, ..] = self;
        (*lengths >> 32 & 0xffff) as usize
    }

    #[inline(always)]
    fn turns(&self) -> u32 {
        let [_, _, lengths, ..] = self;
        (*lengths >> 48) as u32
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let [_, _, _, sums, ..] = self;
        *sums & 0xffff_ffff
    }

    #[inline(always)]
    fn ttls(&self) -> (u32, usize) {
        let [_, _, _, sums, ..] = self;
        ((*sums >> 32) as u32 & 0xffff, (*sums >> 48) as usize)
    }

    #[inline(always)]
    fn times(&self) -> (u64, u64) {
        let [_, _, _, _, since, spent_at, ..] = self;
        (*since, *spent_at)
    }
}
