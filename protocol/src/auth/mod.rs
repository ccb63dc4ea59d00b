//! Authentication: who is at the other end, and the session key that only he and we have.
//!
//! | file | document |
//! |---|---|
//! | [`spnego`] | RFC 4178 and MS-SPNG: the negotiation of a mechanism, and its tokens |
//! | [`ntlm`] | MS-NLMP: the one mechanism, NTLM's second version |
//! | `acceptor`, `initiator` | the two sides of the conversation, each an enum of states |
//! | `der` | the little of X.690 that SPNEGO needs |
//!
//! The server gives [`Acceptor::hint`] in its NEGOTIATE response and takes an [`Acceptor`] through the
//! SESSION_SETUP requests of a session. Secrets arrive through [`Accounts`]; time and challenge are
//! arguments:
//!
//! ```text
//!  client                                             Acceptor
//!    |  NegTokenInit [NTLM, ..] NEGOTIATE                | Start
//!    | ------------------------------------------------> |
//!    |               NegTokenResp accept-incomplete,     |
//!    |               CHALLENGE                           | ExpectAuthenticate
//!    | <------------------------------------------------ |
//!    |  NegTokenResp AUTHENTICATE, mechListMIC           |
//!    | ------------------------------------------------> |
//!    |               NegTokenResp accept-completed,      |
//!    |               mechListMIC                         | Done
//!    | <------------------------------------------------ |
//! ```
//!
//! A client that would rather use Kerberos lists it first; the acceptor then asks for NTLM with request-mic,
//! and the NEGOTIATE comes with the second token (ExpectNegotiate). One that speaks NTLM without SPNEGO
//! around it is answered in kind.

mod acceptor;
mod der;
mod initiator;
pub mod ntlm;
pub mod spnego;

pub use acceptor::{Accepted, Acceptor, Step};
pub use initiator::Initiator;
pub use ntlm::message::TargetInfo;
pub use ntlm::nt_hash;

use zeroize::Zeroizing;

use crate::{Malformed, NtStatus};

/// Who was authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// An account, under the name by which [`Accounts`] found it. The case is the client's.
    User {
        /// The user.
        name: String,
        /// The domain that the client stated; may be empty.
        domain: String,
    },
    /// A client that gave no name.
    Anonymous,
    /// A client whose name nobody has, let in because [`Accounts::guest_ok`] says so. Nothing was verified.
    Guest {
        /// The name.
        asked: String,
    },
}

/// Where the accounts are.
pub trait Accounts: Send + Sync {
    /// The NT hash of an account. The case of `user` must not matter; `domain` is what the client sent, or
    /// the part after the `@` of its name, and may be empty.
    fn nt_hash(&self, user: &str, domain: &str) -> Lookup;

    /// Whether a name that nobody has makes a guest. A wrong password never does.
    fn guest_ok(&self) -> bool;
}

/// What [`Accounts`] knows of a name.
#[derive(Clone)]
pub enum Lookup {
    /// The hash: [`nt_hash`] of the password.
    Hash(Zeroizing<[u8; 16]>),
    /// The account may not be used.
    Disabled,
    /// Nobody has this name.
    Unknown,
}

/// Why an authentication failed.
///
/// The variant is for the log and the counters. The client learns [`status`](Self::status) only, which does
/// not tell whether a name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// A token did not parse.
    #[error("malformed token: {0}")]
    Malformed(#[from] Malformed),
    /// A token of a kind that does not belong at this place of the conversation.
    #[error("unexpected token")]
    Unexpected,
    /// The other side refused.
    #[error("rejected by the peer")]
    Rejected,
    /// The client does not offer NTLM.
    #[error("no mechanism in common")]
    NoMechanism,
    /// The response is one of LM or of NTLM's first version.
    #[error("not an NTLMv2 response")]
    NotNtlmV2,
    /// Nobody has this name.
    #[error("unknown user")]
    UnknownUser,
    /// The account may not be used.
    #[error("account disabled")]
    Disabled,
    /// The response was made with another password.
    #[error("wrong password")]
    WrongPassword,
    /// The MIC over the three NTLM messages is wrong: one of them was changed on the way.
    #[error("wrong message integrity code")]
    Mic,
    /// The mechListMIC is wrong or missing: the list of mechanisms was changed on the way.
    #[error("wrong mechListMIC")]
    MechListMic,
}

impl AuthError {
    /// What the client is told.
    #[must_use]
    pub const fn status(self) -> NtStatus {
        match self {
            AuthError::Malformed(_)
            | AuthError::Unexpected
            | AuthError::Rejected
            | AuthError::NoMechanism
            | AuthError::Mic => NtStatus::INVALID_PARAMETER,
            AuthError::NotNtlmV2
            | AuthError::UnknownUser
            | AuthError::Disabled
            | AuthError::WrongPassword
            | AuthError::MechListMic => NtStatus::LOGON_FAILURE,
        }
    }
}
