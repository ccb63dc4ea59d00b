//! The operations, one story a file.

pub(crate) mod create;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod read_dir;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod run;
