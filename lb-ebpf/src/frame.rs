//! A frame in the kernel: the only pointer arithmetic of the program.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::XdpContext,
};
use core::arch::asm;
use lb_common::{
    frame::{Frame, Header, OFFSET_MAX},
    tables::answers::BODY_WORDS,
};

/// Bytes that can be moved into the headroom: the headers and the question of a DNS message, at most 74 + 255 + 4.
const MOVED_MAX: usize = 512;

#[map]
static MOVED: PerCpuArray<[u8; MOVED_MAX]> = PerCpuArray::with_max_entries(1, 0);

/// The frame of an XDP context.
pub struct XdpFrame {
    context: *mut xdp_md,
    start: usize,
    end: usize,
    reserved: usize,
}

impl XdpFrame {
    /// The frame of this context.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        let mut frame = Self { context: context.as_ptr().cast(), start: 0, end: 0, reserved: 0 };
        frame.look_again();
        frame
    }

    /// To the verifier, the pointers are none any more once a helper has moved an end, or could have.
    #[inline(always)]
    fn look_again(&mut self) {
        let context = self.context;
        // SAFETY: the kernel hands the program a valid context; both fields are loaded as the verifier wants them, and not taken from
        // an earlier load.
        let (start, end) =
            unsafe { ((&raw const (*context).data).read_volatile(), (&raw const (*context).data_end).read_volatile()) };
        (self.start, self.end) = (start as usize, end as usize);
    }

    /// Where a header at a computed offset is.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if offset > OFFSET_MAX {
            return None;
        }
        let mut offset = offset;
        // SAFETY: changes nothing, as was just checked. Linux 6.1 does not remember that check for a value that LLVM spilled
        // before it.
        unsafe { asm!("{0} &= {1}", inout(reg) offset, const OFFSET_MAX) };
        let at = hidden(self.start + offset);
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: no frame lies there. LLVM would ask, now that it knows nothing of the address.
        unsafe { core::hint::assert_unchecked(at != 0) };
        Some(at as *mut T)
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        // Hidden from LLVM, which would otherwise rearrange it into arithmetic on the end, which the verifier forbids.
        let mut len = self.end - self.start;
        // SAFETY: changes nothing: no frame is longer.
        unsafe { asm!("{0} &= 0xffff", inout(reg) len) };
        len
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn head<T: Header>(&self) -> Option<&T> {
        if self.start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the frame; any bytes are a `T`, at any address.
        Some(unsafe { &*(self.start as *const T) })
    }

    #[inline(always)]
    fn head_mut<T: Header>(&mut self) -> Option<&mut T> {
        if self.start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: as for `head`; `&mut self` makes it the only view.
        Some(unsafe { &mut *(self.start as *mut T) })
    }

    #[inline(always)]
    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        // SAFETY: as for `head`.
        self.at(offset).map(|at: *mut T| unsafe { &*at })
    }

    #[inline(always)]
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as for `head_mut`.
        self.at(offset).map(|at: *mut T| unsafe { &mut *at })
    }

    #[inline(always)]
    fn load<const WORDS: usize>(&self, offset: usize, words: &mut [u64; WORDS]) -> Option<()> {
        let left = self.len().checked_sub(offset).filter(|left| *left != 0)?;
        let length = if left < WORDS * 8 { left } else { WORDS * 8 };
        let length = at_least_one::<0xff>(length);
        // SAFETY: the helper checks the frame's side, and at most all of `words` is written.
        let result =
            unsafe { bpf_xdp_load_bytes(self.context, offset as u32, words.as_mut_ptr().cast(), length as u32) };
        if result == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn last_word(&self, offset: usize) -> Option<u64> {
        // Hidden from LLVM, which would otherwise count these bits in every round of the loop that asks for words.
        let missing = (hidden(offset) + 8).checked_sub(self.len()).filter(|missing| matches!(missing, 1..=7))?;
        let last: *mut u64 = self.at(self.len().checked_sub(8)?)?;
        // SAFETY: within the frame; any alignment will do.
        let word = unsafe { last.read_unaligned() };
        let bits = missing as u32 * 8;
        Some(word >> bits | !(u64::MAX >> bits))
    }

    #[inline(always)]
    fn store(&mut self, offset: usize, body: &[u64; BODY_WORDS], from: usize, length: usize) -> Option<()> {
        match length {
            0 => Some(()),
            1..8 => None,
            8..16 => self.store_ends::<1>(offset, body, from, length),
            16..32 => self.store_ends::<2>(offset, body, from, length),
            32..64 => self.store_ends::<4>(offset, body, from, length),
            64 => self.store_words::<8>(offset, body, from),
            _ => {
                let mut done = 0;
                for _ in 0..BODY_WORDS / 8 {
                    if done + 64 > length {
                        break;
                    }
                    self.store_words::<8>(offset + done, body, from + done)?;
                    done += 64;
                }
                self.store_words::<8>(offset + length - 64, body, from + length - 64)
            }
        }
    }

    #[inline(always)]
    fn forget(&mut self) {
        self.look_again();
    }

    #[inline(always)]
    fn shrink_front(&mut self, by: usize) -> Option<()> {
        self.adjust_head(by as i32)
    }

    #[inline(always)]
    fn reserve_front(&mut self, bytes: usize) {
        self.reserved = bytes;
    }

    #[inline(always)]
    fn grow_front(&mut self, by: usize) -> Option<()> {
        self.adjust_head(-((by + self.reserved) as i32))?;
        self.give_back()
    }

    #[inline(always)]
    fn resize(&mut self, len: usize, keep: usize) -> Option<()> {
        let growth = len as i32 - self.len() as i32;
        // SAFETY: the context is this program's; all views end here, as `&mut self` tells the borrow checker.
        let result = unsafe { bpf_xdp_adjust_tail(self.context, growth) };
        let done = if result == 0 { Some(()) } else { self.grow_head(growth, keep) };
        self.look_again();
        done
    }
}

impl XdpFrame {
    /// Copies what is at least `WORDS` words long and at most twice as long: its front and its end, which may overlap.
    #[inline(always)]
    fn store_ends<const WORDS: usize>(
        &mut self,
        offset: usize,
        body: &[u64; BODY_WORDS],
        from: usize,
        length: usize,
    ) -> Option<()> {
        self.store_words::<WORDS>(offset, body, from)?;
        let more = length - WORDS * 8;
        self.store_words::<WORDS>(offset + more, body, from + more)
    }

    /// Copies words of a body, from its byte `from` on.
    #[inline(always)]
    fn store_words<const WORDS: usize>(&mut self, offset: usize, body: &[u64; BODY_WORDS], from: usize) -> Option<()> {
        let to: *mut u64 = self.at::<[u64; WORDS]>(offset)?.cast();
        if from > (BODY_WORDS - WORDS) * 8 {
            return None;
        }
        // Added only now, as LLVM would else add what was not compared yet, for all rounds of a loop at once.
        let from = (body.as_ptr() as usize + hidden(from)) as *const u64;
        for index in 0..WORDS {
            // SAFETY: both within what was compared just now; any alignment will do.
            unsafe { to.add(index).write_unaligned(from.add(index).read_unaligned()) };
        }
        Some(())
    }

    #[inline(always)]
    fn adjust_head(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is this program's; all views end here, as `&mut self` tells the borrow checker.
        let result = unsafe { bpf_xdp_adjust_head(self.context, by) };
        self.look_again();
        if result == 0 { Some(()) } else { None }
    }

    /// Gives back what is reserved after growing by as much too far: so it is known to be there.
    #[inline(always)]
    fn give_back(&mut self) -> Option<()> {
        // Only frames with tags have something reserved; for the others LLVM sees that this is nothing.
        if self.reserved == 0 { Some(()) } else { self.adjust_head(self.reserved as i32) }
    }

    /// Grows into the headroom and moves the first `keep` bytes there. What a socket sends over a veth has next to no room
    /// behind it, but always some in front.
    #[inline(always)]
    fn grow_head(&mut self, growth: i32, keep: usize) -> Option<()> {
        if growth <= 0 || keep > MOVED_MAX - 1 {
            return None;
        }
        let moved = MOVED.get_ptr_mut(0)?.cast();
        let keep = at_least_one::<0x1ff>(keep) as u32;
        // SAFETY: this CPU's own buffer, at least `keep` bytes long.
        if unsafe { bpf_xdp_load_bytes(self.context, 0, moved, keep) } != 0 {
            return None;
        }
        self.adjust_head(-(growth + self.reserved as i32))?;
        self.give_back()?;
        // SAFETY: as for the load; the frame only grew.
        let result = unsafe { bpf_xdp_store_bytes(self.context, 0, moved, keep) };
        if result == 0 { Some(()) } else { None }
    }
}

/// The same address or offset, of which LLVM knows nothing: it would fold the length of what is there into the offset and compare
/// another register than the one it then reads by, which the verifier can't follow.
#[inline(always)]
fn hidden(mut address: usize) -> usize {
    // SAFETY: changes nothing.
    unsafe { asm!("{0} = {0}", inout(reg) address, options(nomem, preserves_flags, nostack)) };
    address
}

/// The same length, 1 to `MASK` + 1, in a form that tells every verifier so: 6.1 does not conclude from `!= 0` that a length is
/// at least 1.
#[inline(always)]
fn at_least_one<const MASK: i32>(mut length: usize) -> usize {
    // SAFETY: arithmetic on one register.
    unsafe {
        asm!("{0} += -1", "{0} &= {1}", "{0} += 1", inout(reg) length, const MASK);
    }
    length
}
