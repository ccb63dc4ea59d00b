//! What files, file systems and directories say of themselves, and what can be asked of them: MS-FSCC.

pub mod access;
pub mod attributes;

pub use access::AccessMask;
pub use attributes::FileAttributes;
