//! NTLM: MS-NLMP, its second version only.
//!
//! | file | section |
//! |---|---|
//! | [`message`] | 2.2.1 and 2.2.2: NEGOTIATE, CHALLENGE, AUTHENTICATE; the AV pairs |
//! | [`response`] | 3.3.2 and 3.4: hashes, the NTLMv2 response, the keys; signing with them |
//! | `handshake` | 3.1.5 and 3.2.5: the steps of the server and of the client |

pub mod message;
pub mod response;

pub(super) mod handshake;

pub use response::nt_hash;
