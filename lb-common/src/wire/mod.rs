//! Headers as they are on the wire, one a file. Byte order is a type; a header that is edited together with its
//! neighbours is one struct with them, so that the frame's length is compared once.

pub mod arp;
pub mod dns;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod tunnel;
pub mod vlan;

/// Declares a header: its layout, its size (checked), and what the path needs of it.
macro_rules! header {
    ($(#[$meta:meta])* $name:ident = $len:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
            zerocopy::KnownLayout, zerocopy::Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $len);
        impl $name {
            /// Length on the wire, in bytes.
            pub const LEN: usize = $len;
        }
    };
}
pub(crate) use header;
