//! A tree of files below a root, with a parallel lookup cache.

pub mod fold;
pub mod name;
pub mod path;
