//! The preauthentication integrity hash of 3.1.1: MS-SMB2 3.1.4.4.1, 3.2.5.2, 3.3.5.4 and 3.3.5.5.

use aws_lc_rs::digest;

/// A running SHA-512 over every NEGOTIATE and SESSION_SETUP message, in the order of the wire.
///
/// A connection has one for NEGOTIATE; each authentication copies it and goes on with its own. The keys of
/// the session are derived from its last value, so that a changed byte on the way ends in a wrong signature.
/// The last SESSION_SETUP response (STATUS_SUCCESS) is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreauthHash([u8; 64]);

impl PreauthHash {
    /// The value before the first message: 64 zero bytes.
    #[must_use]
    pub const fn new() -> PreauthHash {
        PreauthHash([0; 64])
    }

    /// Takes in one whole message, from its SMB2 header on, without the transport's length prefix.
    pub fn update(&mut self, message: &[u8]) {
        self.update_segments(&[message]);
    }

    /// [`update`](Self::update) for a message that lies in several pieces.
    pub fn update_segments(&mut self, segments: &[&[u8]]) {
        let mut context = digest::Context::new(&digest::SHA512);
        context.update(&self.0);
        for segment in segments {
            context.update(segment);
        }
        self.0.copy_from_slice(context.finish().as_ref());
    }

    /// The value now: the context of the key derivation.
    #[must_use]
    pub const fn value(&self) -> &[u8; 64] {
        &self.0
    }
}

impl Default for PreauthHash {
    fn default() -> PreauthHash {
        PreauthHash::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    // Microsoft's open specification blog, "SMB 3.1.1 Pre-authentication integrity in Windows 10".
    #[test]
    fn published_exchange() {
        let mut hash = PreauthHash::new();
        hash.update(&hex("
            FE534D4240000100000000000000800000000000000000000100000000000000FFFE000000000000
            00000000000000000000000000000000000000000000000024000500000000003F000000ECD86F32
            6276024F9F7752B89BB33F3A70000000020000000202100200030203110300000100260000000000
            010020000100FA49E6578F1F3A9F4CD3E9CC14A67AA884B3D05844E0E5A118225C15887F32FF0000
            0200060000000000020002000100"));
        assert_eq!(
            hash.value()[..],
            hex("DD94EFC5321BB618A2E208BA8920D2F422992526947A409B5037DE1E0FE8C736
                 2B8C47122594CDE0CE26AA9DFC8BCDBDE0621957672623351A7540F1E54A0426")
        );
        let response = hex("
            FE534D4240000100000000000000010001000000000000000100000000000000FFFE000000000000
            000000000000000000000000000000000000000000000000410001001103020039CBCAF329714942
            BDCE5D60F09AB3FB2F000000000080000000800000008000D8DAE5ADCBAED00109094AB095AED001
            80004001C00100006082013C06062B0601050502A08201303082012CA01A3018060A2B0601040182
            3702021E060A2B06010401823702020AA282010C048201084E45474F455854530100000000000000
            60000000700000007C7CC0FD06D6362D02DDE1CF343BFE292900F49750B4AA97934D9C4296B26E51
            FD370471B235E15A50DAE15BD5489C87000000000000000060000000010000000000000000000000
            5C33530DEAF90D4DB2EC4AE3786EC3084E45474F4558545303000000010000004000000098000000
            7C7CC0FD06D6362D02DDE1CF343BFE295C33530DEAF90D4DB2EC4AE3786EC3084000000058000000
            3056A05430523027802530233121301F06035504031318546F6B656E205369676E696E6720507562
            6C6963204B65793027802530233121301F06035504031318546F6B656E205369676E696E67205075
            626C6963204B6579010026000000000001002000010060A3C3B95C3C7CCD51EC536648D9B3AC74C4
            83CA5B65385A251117BEB30712E50000020004000000000001000200");
        // In pieces it is the same.
        hash.update_segments(&[&response[..64], &[], &response[64..]]);
        assert_eq!(
            hash.value()[..],
            hex("324BFA92A4F3A190E466EBEA08D9C110DC88BFED758D9846ECC6F541CC1D02AE
                 3C94A79F36011E997E13F841B91B50957AD07B19C8E2539C0B23FDAE09D2C513")
        );
    }
}
