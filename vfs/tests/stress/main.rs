//! The cache from real threads: many clients at once, storages that fail, requests that are dropped anywhere. Whatever
//! they do, all comes to rest, the cache agrees with the storage, and the tree is a tree.
//!
//! `SHOAL_STRESS=seconds` makes the storms last so long.

mod cancel;
mod client;
mod every;
mod faults;
mod storms;
