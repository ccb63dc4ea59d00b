//! Every way in which bytes can be wrong, by name.

/// Why bytes did not parse. The server's answer is STATUS_INVALID_PARAMETER, or the end of the connection where
/// the specification says so; the name is for the log line and the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the structure does.
    #[error("truncated")]
    Truncated,
    /// StructureSize is not the one that the specification gives for the message.
    #[error("wrong structure size")]
    StructureSize,
    /// An offset points before the place where the buffer may begin, or offset + length beyond the message.
    #[error("offset outside the message")]
    Offset,
    /// A length that cannot be: an odd number of bytes of UTF-16, a fixed structure of another size.
    #[error("wrong length")]
    Length,
    /// A structure does not begin at the required multiple of bytes.
    #[error("misaligned")]
    Alignment,
    /// The protocol identifier (or another signature) is not the expected one.
    #[error("wrong protocol identifier")]
    ProtocolId,
    /// The named field holds a value that the specification does not define.
    #[error("invalid {0}")]
    Value(&'static str),
    /// There are more of the named thing than we accept in one message.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A thing that must be present at least once is missing.
    #[error("missing {0}")]
    Missing(&'static str),
    /// Structures are nested deeper than we accept.
    #[error("nested too deeply")]
    Depth,
}

// nom's own combinators can only say "here"; our primitives name the fault themselves.
impl<I> nom::error::ParseError<I> for Malformed {
    fn from_error_kind(_: I, _: nom::error::ErrorKind) -> Malformed {
        Malformed::Truncated
    }

    fn append(_: I, _: nom::error::ErrorKind, earlier: Malformed) -> Malformed {
        earlier
    }
}

impl From<nom::Err<Malformed>> for Malformed {
    fn from(error: nom::Err<Malformed>) -> Malformed {
        match error {
            nom::Err::Incomplete(_) => Malformed::Truncated,
            nom::Err::Error(malformed) | nom::Err::Failure(malformed) => malformed,
        }
    }
}
