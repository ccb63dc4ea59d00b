//! The server through the wire: real bytes in, real bytes out, no socket, no sleeping. A test that shows what a row of the list of
//! attacks demands is named after it.

#[path = "../harness/mod.rs"]
mod harness;

mod cancel;
mod compound;
mod encryption;
mod files;
mod limits;
mod negotiate;
mod pipes;
mod rename;
mod sequence;
mod session;
mod system_calls;
