//! Data types shared by the protocols of Windows: MS-DTYP.

pub mod acl;
pub mod filetime;
pub mod guid;
pub mod security_descriptor;
pub mod sid;

pub use acl::{Ace, AceFlags, AceKind, Acl};
pub use filetime::FileTime;
pub use guid::Guid;
pub use security_descriptor::{ControlFlags, SecurityDescriptor, SecurityInformation};
pub use sid::Sid;
