//! What files, file systems and directories say of themselves, and what can be asked of them: MS-FSCC.
//!
//! | module | section |
//! |---|---|
//! | [`file_info`] | 2.4: file information classes |
//! | [`directory_info`] | 2.4: the classes that list a directory |
//! | [`ea`] | 2.4: extended attributes |
//! | [`fs_info`] | 2.5: file system information classes |
//! | [`attributes`] | 2.6: file attributes |
//! | [`notify`] | 2.7: changes in a directory |
//! | [`fsctl`] | 2.3, and MS-SMB2 2.2.31 and 2.2.32: control codes and what goes with them |
//! | [`reparse`] | 2.1.2: reparse points |
//! | [`access`] | MS-SMB2 2.2.13.1: access masks |

pub mod access;
pub mod attributes;
mod chain;
pub mod directory_info;
pub mod ea;
pub mod file_info;
mod fixed;
pub mod fs_info;
pub mod fsctl;
pub mod notify;
pub mod reparse;

pub use access::AccessMask;
pub use attributes::FileAttributes;
pub use directory_info::{DirectoryClass, DirectoryEncoder, DirectoryEntry};
pub use file_info::FileInformationClass;
pub use fs_info::FsInformationClass;
pub use fsctl::Fsctl;
