//! `fixed!`: structures of a fixed length, declared once and read and written in the order of their fields.

use bytes::{BufMut, BytesMut};

use super::{AccessMask, FileAttributes};
use crate::dtyp::{FileTime, Guid};
use crate::parse::{self, Parsed};

/// A field of a fixed length, little-endian.
pub(crate) trait Field: Sized {
    /// Bytes on the wire.
    const LEN: usize;
    /// Reads the field at the start of `input`.
    fn read(input: &[u8]) -> Parsed<'_, Self>;
    /// Appends the field.
    fn write(&self, out: &mut BytesMut);
}

macro_rules! integer {
    ($($int:ident, $put:ident;)*) => {$(
        impl Field for $int {
            const LEN: usize = size_of::<$int>();
            fn read(input: &[u8]) -> Parsed<'_, $int> {
                parse::$int(input)
            }
            fn write(&self, out: &mut BytesMut) {
                out.$put(*self);
            }
        }
    )*};
}

integer! {
    u8, put_u8;
    u16, put_u16_le;
    u32, put_u32_le;
    u64, put_u64_le;
}

/// Any byte but 0 is true.
impl Field for bool {
    const LEN: usize = 1;
    fn read(input: &[u8]) -> Parsed<'_, bool> {
        let (rest, byte) = parse::u8(input)?;
        Ok((rest, byte != 0))
    }
    fn write(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }
}

impl<const N: usize> Field for [u8; N] {
    const LEN: usize = N;
    fn read(input: &[u8]) -> Parsed<'_, [u8; N]> {
        parse::array(input)
    }
    fn write(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

macro_rules! newtype {
    ($($name:ident($inner:ty);)*) => {$(
        impl Field for $name {
            const LEN: usize = <$inner as Field>::LEN;
            fn read(input: &[u8]) -> Parsed<'_, $name> {
                let (rest, inner) = <$inner as Field>::read(input)?;
                Ok((rest, $name(inner)))
            }
            fn write(&self, out: &mut BytesMut) {
                self.0.write(out);
            }
        }
    )*};
}

newtype! {
    FileTime(u64);
    FileAttributes(u32);
    AccessMask(u32);
    Guid([u8; 16]);
}

/// Declares structures of a fixed length. `[LEN]` is the length on the wire; what the fields leave of it is
/// reserved space at the end, written as zeros and not needed when read (there are clients that leave it away).
macro_rules! fixed {
    ($(
        $(#[$about:meta])*
        $vis:vis struct $name:ident [$len:literal] {
            $( $(#[$doc:meta])* $field:ident: $kind:ty, )*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[$doc])* pub $field: $kind, )*
        }

        impl $name {
            /// Bytes on the wire, reserved space at the end included.
            pub const LEN: usize = $len;

            const RESERVED: usize = $len - (0 $( + <$kind as $crate::fscc::fixed::Field>::LEN )*);

            /// Reads the structure at the start of `input`; what follows is ignored.
            ///
            /// Errors: `Truncated`.
            pub fn parse(input: &[u8]) -> Result<$name, $crate::Malformed> {
                let rest = input;
                $( let (rest, $field) = <$kind as $crate::fscc::fixed::Field>::read(rest)?; )*
                let _ = rest;
                Ok($name { $( $field, )* })
            }

            /// Appends the structure.
            pub fn encode(&self, out: &mut bytes::BytesMut) {
                use bytes::BufMut;
                $( $crate::fscc::fixed::Field::write(&self.$field, out); )*
                out.put_bytes(0, $name::RESERVED);
            }
        }
    )*};
}

pub(crate) use fixed;
