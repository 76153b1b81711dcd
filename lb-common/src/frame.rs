//! The seam between the path and the bytes of a packet.

use crate::tables::answers::BODY_WORDS;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A header on the wire: any bytes are one, and it may start at any address.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned> Header for T {}

/// The furthest that a computed offset may be. More than any header's; the kernel's verifier needs a bound, and a mask is the
/// cheapest one.
pub const OFFSET_MAX: usize = 0x7ff;

/// A frame as it came from the wire, starting with its Ethernet header.
///
/// There are two ways to see bytes, because they cost differently in BPF: a view at the front has a constant offset and
/// needs one comparison; a view at a computed offset needs a bound that the verifier can follow.
pub trait Frame {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the interface that the frame came in by.
    fn interface(&self) -> u32;

    /// The front of the frame, if it is long enough.
    fn head<T: Header>(&self) -> Option<&T>;

    /// The front of the frame, to be changed.
    fn head_mut<T: Header>(&mut self) -> Option<&mut T>;

    /// A header at a computed offset, at most [`OFFSET_MAX`], if the frame reaches so far.
    fn view<T: Header>(&self, offset: usize) -> Option<&T>;

    /// A header at a computed offset, to be changed.
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Copies the bytes from `offset` on into `words`, as many as both have. What is left of `words` is unspecified.
    fn load<const WORDS: usize>(&self, offset: usize, words: &mut [u64; WORDS]) -> Option<()>;

    /// The eight bytes of the frame from `offset` on, at most [`OFFSET_MAX`], of which it has at least one and less than eight: what is
    /// missing is all ones. The frame has eight bytes in all.
    fn last_word(&self, offset: usize) -> Option<u64>;

    /// Copies `length` bytes of a body, from its byte `from` on, to `offset`: none, or at least eight; more than the rest of the frame
    /// or of the body, or an offset beyond [`OFFSET_MAX`], is `None`, and some of them may have been copied.
    fn store(&mut self, offset: usize, body: &[u64; BODY_WORDS], from: usize, length: usize) -> Option<()>;

    /// Has the kernel's verifier forget how long the frame is: it would follow the rest of the path once for every length that a loop
    /// over the frame has proved.
    fn forget(&mut self) {}

    /// Drops `by` bytes at the front. `None` if there are fewer; the frame is then as it was.
    fn shrink_front(&mut self, by: usize) -> Option<()>;

    /// From now on, what grows leaves this many bytes of the room in front.
    fn reserve_front(&mut self, bytes: usize);

    /// Puts `by` unspecified bytes in front. `None` if there is no room; the frame is then as it was.
    fn grow_front(&mut self, by: usize) -> Option<()>;

    /// Makes the frame `len` bytes long, its first `keep` bytes kept and the rest unspecified. `None` if there is no
    /// room; the frame is then as it was.
    fn resize(&mut self, len: usize, keep: usize) -> Option<()>;
}
