//! A tree of files below a root, with a parallel lookup cache.

pub mod backend;
pub mod error;
pub mod fold;
pub mod metadata;
pub mod name;
pub mod path;
pub mod sync;

pub use error::{FsError, Result};
