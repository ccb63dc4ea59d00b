//! The parallel lookup cache: what names mean, and who may change that.

pub(crate) mod coherence;
pub(crate) mod evict;
pub(crate) mod fifo;
pub(crate) mod gate;
pub(crate) mod index;
pub(crate) mod link;
pub(crate) mod slot;
pub(crate) mod slotmap;
