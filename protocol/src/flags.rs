//! `flags!`: a newtype over an integer whose bits have names.
//!
//! Unknown bits are kept, never refused: the specifications say "ignore on receipt" for nearly all of them, and
//! where they do not the command that reads the field decides.

/// Declares sets of flags.
///
/// ```text
/// flags! {
///     /// What it is, and the section.
///     pub struct SessionFlags: u16 {
///         /// What the bit means.
///         IS_GUEST = 0x0001;
///     }
/// }
/// ```
macro_rules! flags {
    ($(
        $(#[$about:meta])*
        $vis:vis struct $name:ident: $int:ty {
            $( $(#[$doc:meta])* $flag:ident = $value:expr; )*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        $vis struct $name(pub $int);

        impl $name {
            $( $(#[$doc])* pub const $flag: $name = $name($value); )*
            /// No flag at all.
            pub const EMPTY: $name = $name(0);

            /// The integer as it stands on the wire.
            #[inline]
            pub const fn bits(self) -> $int {
                self.0
            }

            /// Whether every flag of `other` is set.
            #[inline]
            pub const fn contains(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any flag of `other` is set.
            #[inline]
            pub const fn intersects(self, other: $name) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether no flag is set.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// These flags and those of `other` (as `|`, but const).
            #[inline]
            pub const fn union(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }

            /// These flags without those of `other`.
            #[inline]
            pub const fn without(self, other: $name) -> $name {
                $name(self.0 & !other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = $name;
            #[inline]
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl core::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, other: $name) {
                self.0 |= other.0;
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = $name;
            #[inline]
            fn bitand(self, other: $name) -> $name {
                $name(self.0 & other.0)
            }
        }

        impl core::ops::BitAndAssign for $name {
            #[inline]
            fn bitand_assign(&mut self, other: $name) {
                self.0 &= other.0;
            }
        }

        impl core::ops::Not for $name {
            type Output = $name;
            #[inline]
            fn not(self) -> $name {
                $name(!self.0)
            }
        }

        impl From<$int> for $name {
            #[inline]
            fn from(bits: $int) -> $name {
                $name(bits)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                const NAMES: &[($int, &str)] = &[$( ($value, stringify!($flag)), )*];
                let mut rest = self.0;
                let mut separator = "";
                for &(bits, name) in NAMES {
                    if bits != 0 && rest & bits == bits {
                        write!(f, "{separator}{name}")?;
                        separator = " | ";
                        rest &= !bits;
                    }
                }
                if rest != 0 || separator.is_empty() {
                    write!(f, "{separator}{rest:#x}")?;
                }
                Ok(())
            }
        }
    )*};
}

pub(crate) use flags;

#[cfg(test)]
mod tests {
    flags! {
        /// For the test.
        struct Sample: u8 {
            /// One.
            ONE = 1;
            /// Two.
            TWO = 2;
        }
    }

    #[test]
    fn sets_and_names() {
        let both = Sample::ONE | Sample::TWO;
        assert!(both.contains(Sample::ONE) && both.intersects(Sample::TWO));
        assert!(!Sample::ONE.contains(both) && Sample::ONE.intersects(both));
        assert_eq!(both.without(Sample::TWO), Sample::ONE);
        assert_eq!(Sample::ONE.union(Sample::TWO), both);
        assert_eq!((both & Sample::ONE).bits(), 1);
        assert!(Sample::EMPTY.is_empty() && !both.is_empty());
        assert_eq!(format!("{both:?}"), "ONE | TWO");
        assert_eq!(format!("{:?}", Sample(0x81)), "ONE | 0x80");
        assert_eq!(format!("{:?}", Sample::EMPTY), "0x0");
    }
}
