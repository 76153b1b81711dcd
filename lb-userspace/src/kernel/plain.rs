//! The one promise to aya about the layouts that user space and kernel share.

/// A map's key or value.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: any bytes are a `T` and a `T` has no padding, as bytemuck's derive has proved; this wrapper adds nothing.
unsafe impl<T: bytemuck::Pod> aya::Pod for Plain<T> {}
