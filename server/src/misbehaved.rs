//! Why a connection must end: one variant for each fault of a peer that the specification, or a bound of ours, answers
//! with a disconnect. Each gives one log line and one count.

use shoal_protocol::Malformed;

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Misbehaved {
    /// Not an SMB frame (MS-SMB2 2.1).
    #[error("sent no direct TCP frame")]
    Frame(Malformed),
    /// A frame longer than any message may be at this point.
    #[error("announced a frame of {0} bytes")]
    FrameTooLong(usize),
    /// The protocol identifier is none that can come here: SMB1 after the negotiation, a compression transform.
    #[error("sent a message of an unexpected protocol")]
    Protocol,
    /// 3.3.5.2.6: shorter than a header, or a command that does not exist.
    #[error("sent a malformed header: {0}")]
    Header(Malformed),
    /// 3.3.5.2.7: the chain's structure.
    #[error("sent a malformed chain: {0}")]
    Chain(Malformed),
    /// A response came where only requests can.
    #[error("sent a response")]
    Response,
    /// 3.3.5.2.3: a MessageId that was used, or was never granted.
    #[error("used a message id outside its window")]
    SequenceOutsideWindow,
    /// 3.3.5.2.2: a request before NEGOTIATE.
    #[error("sent a request before negotiating")]
    NotNegotiated,
    /// 3.3.5.4: NEGOTIATE on a connection that has a dialect.
    #[error("negotiated twice")]
    NegotiatedTwice,
    /// The SMB1 negotiate did not parse, or offers nothing of ours.
    #[error("sent a malformed SMB1 negotiate")]
    Smb1,
    /// 3.3.5.2.1.1: an encrypted message that cannot be opened.
    #[error("sent an encrypted message that cannot be opened: {0}")]
    Transform(&'static str),
    /// 3.3.5.15.12: VALIDATE_NEGOTIATE_INFO shows that somebody changed the negotiation on its way.
    #[error("shows another negotiation than we saw")]
    NegotiationTampered,
    /// It did not negotiate and log in, or finish a frame that it began, in time.
    #[error("took too long")]
    TimedOut,
    /// It takes its replies too slowly, or not at all.
    #[error("does not read its replies")]
    NotReading,
    /// A begun connection had to make room for a new one.
    #[error("had not logged in when connections ran out")]
    Crowded,
}

impl Misbehaved {
    /// A name for counters.
    pub fn name(self) -> &'static str {
        match self {
            Misbehaved::Frame(_) => "frame",
            Misbehaved::FrameTooLong(_) => "frame-too-long",
            Misbehaved::Protocol => "protocol",
            Misbehaved::Header(_) => "header",
            Misbehaved::Chain(_) => "chain",
            Misbehaved::Response => "response",
            Misbehaved::SequenceOutsideWindow => "sequence-outside-window",
            Misbehaved::NotNegotiated => "not-negotiated",
            Misbehaved::NegotiatedTwice => "negotiated-twice",
            Misbehaved::Smb1 => "smb1",
            Misbehaved::Transform(_) => "transform",
            Misbehaved::NegotiationTampered => "negotiation-tampered",
            Misbehaved::TimedOut => "timed-out",
            Misbehaved::NotReading => "not-reading",
            Misbehaved::Crowded => "crowded",
        }
    }
}
