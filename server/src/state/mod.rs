//! What the server knows between requests: the "Per X" lists of MS-SMB2 3.3.1 as structs.
//!
//! Nothing here awaits, makes a system call or reads a clock; where time matters it is an argument. Lock order: a
//! server's tables, then a session's, then the `Opens` of one vfs node (which hold its [`file::NodeState`]). The
//! dashmaps hold `Arc`s only: clone the `Arc` out and let the guard go on the same line.

pub mod byte_range;
pub mod enumeration;
pub mod file;
pub mod notify;
pub mod open;
pub mod pattern;
pub mod sequence;
pub mod session;
pub mod share_mode;
pub mod tree;
pub mod turn;
