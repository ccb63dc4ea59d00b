//! Models of the lookup cache under shuttle, and the seeded defects that they must catch.
//!
//! Run as `RUSTFLAGS='--cfg shuttle' cargo test -p shoal-vfs --test models --release --target-dir target/shuttle`. The
//! code is the crate's own: `sync.rs` swaps its mutexes and tasks for the checker's, which then tries thousands of
//! orders in which the tasks of a model could run. Two schedulers are used, since each misses what the other finds:
//! PCT (few, well placed switches) and random.
//!
//! `SHOAL_MODELS=n` multiplies the number of schedules; with `SHOAL_MODELS_SCHEDULE` set a failing one is printed.
#![cfg(shuttle)]

mod backend;
mod linear;
mod names;
mod pairs;
mod rules;
mod run;
mod teeth;
mod told;
mod tree;
