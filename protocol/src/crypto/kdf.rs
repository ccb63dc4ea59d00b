//! Keys from the session key: MS-SMB2 3.1.4.2, with the labels of 3.2.5.3.1 and 3.3.5.5.3. SP800-108 in
//! counter mode over HMAC-SHA256.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::encryption::Cipher;
use super::sized;
use crate::smb2::Dialect;

/// The keys of one session. They are overwritten when this is dropped.
///
/// The names state a direction and not a role: what 3.3.1.8 calls the server's EncryptionKey is
/// `server_to_client`, and its DecryptionKey is `client_to_server`; for the client it is the other way round.
#[derive(Clone)]
pub struct SessionKeys {
    /// Signs the messages of both sides, 16 bytes. In 3.1.1 a channel that is bound later has its own:
    /// [`channel_signing_key`].
    pub signing: Zeroizing<Vec<u8>>,
    /// What the upper layer gets when it asks for the session key (3.3.4.6), 16 bytes.
    pub application: Zeroizing<Vec<u8>>,
    /// Encrypts what the client sends: 16 bytes, or 32 with a 256-bit cipher. Empty in 2.x.
    pub client_to_server: Zeroizing<Vec<u8>>,
    /// Encrypts what the server sends: 16 bytes, or 32 with a 256-bit cipher. Empty in 2.x.
    pub server_to_client: Zeroizing<Vec<u8>>,
}

impl SessionKeys {
    /// Derives a session's keys.
    ///
    /// `session_key` is what the authentication gave, cut or zero-padded to 16 bytes by us;
    /// `full_session_key` is the same without being cut, which the 256-bit ciphers take (with NTLM both are
    /// the same 16 bytes). `cipher` is the one negotiated, `None` where encryption is not; it is ignored
    /// before 3.0. `preauth_hash` is Session.PreauthIntegrityHashValue, for 3.1.1 only.
    ///
    /// # Panics
    ///
    /// When the dialect is 3.1.1 and there is no `preauth_hash`: keys without it would protect nothing.
    #[must_use]
    pub fn derive(
        dialect: Dialect,
        cipher: Option<Cipher>,
        session_key: &[u8],
        full_session_key: &[u8],
        preauth_hash: Option<&[u8; 64]>,
    ) -> SessionKeys {
        let session_key = sized::<16>(session_key);
        if dialect < Dialect::Smb300 {
            return SessionKeys {
                signing: Zeroizing::new(session_key.to_vec()),
                application: Zeroizing::new(session_key.to_vec()),
                client_to_server: Zeroizing::default(),
                server_to_client: Zeroizing::default(),
            };
        }
        // Only the encryption keys grow with a 256-bit cipher: Windows, Samba and macOS sign with 16 bytes
        // always.
        let length = cipher.map_or(16, Cipher::key_length);
        let input = if length > 16 { full_session_key } else { &session_key[..] };
        let labels = Labels::of(dialect, preauth_hash);
        SessionKeys {
            signing: derive(&session_key[..], labels.signing, 16),
            application: derive(&session_key[..], labels.application, 16),
            client_to_server: derive(input, labels.client_to_server, length),
            server_to_client: derive(input, labels.server_to_client, length),
        }
    }
}

/// Channel.SigningKey of a connection that is bound to a session later (3.3.5.5.3): the session's key with
/// the hash of the binding's own exchange. Before 3.1.1 it comes out as the session's signing key.
///
/// # Panics
///
/// When the dialect is 3.1.1 and there is no `preauth_hash`.
#[must_use]
pub fn channel_signing_key(
    dialect: Dialect,
    session_key: &[u8],
    preauth_hash: Option<&[u8; 64]>,
) -> Zeroizing<Vec<u8>> {
    let session_key = sized::<16>(session_key);
    if dialect < Dialect::Smb300 {
        return Zeroizing::new(session_key.to_vec());
    }
    derive(&session_key[..], Labels::of(dialect, preauth_hash).signing, 16)
}

/// A label and a context. The zero byte at the end of the strings is part of them.
type Purpose<'a> = (&'static [u8], &'a [u8]);

struct Labels<'a> {
    signing: Purpose<'a>,
    application: Purpose<'a>,
    client_to_server: Purpose<'a>,
    server_to_client: Purpose<'a>,
}

impl<'a> Labels<'a> {
    fn of(dialect: Dialect, preauth_hash: Option<&'a [u8; 64]>) -> Labels<'a> {
        if dialect >= Dialect::Smb311 {
            let hash: &[u8] = preauth_hash.expect("3.1.1 derives its keys from the preauthentication hash");
            Labels {
                signing: (b"SMBSigningKey\0", hash),
                application: (b"SMBAppKey\0", hash),
                client_to_server: (b"SMBC2SCipherKey\0", hash),
                server_to_client: (b"SMBS2CCipherKey\0", hash),
            }
        } else {
            Labels {
                signing: (b"SMB2AESCMAC\0", b"SmbSign\0"),
                application: (b"SMB2APP\0", b"SmbRpc\0"),
                // The space makes it as long as "ServerOut"; it is what the specification says.
                client_to_server: (b"SMB2AESCCM\0", b"ServerIn \0"),
                server_to_client: (b"SMB2AESCCM\0", b"ServerOut\0"),
            }
        }
    }
}

/// SP800-108 5.1 with r = 32: one round of HMAC-SHA256 over counter, label, 0, context and the length in bits
/// gives up to 32 bytes, which is all that SMB asks for.
fn derive(key: &[u8], (label, context): Purpose<'_>, length: usize) -> Zeroizing<Vec<u8>> {
    debug_assert!(length <= 32);
    let mut prf = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    prf.update(&1u32.to_be_bytes());
    prf.update(label);
    prf.update(&[0]);
    prf.update(context);
    prf.update(&(length as u32 * 8).to_be_bytes());
    Zeroizing::new(prf.sign().as_ref()[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    fn check(
        keys: &SessionKeys,
        signing: &str,
        client_to_server: &str,
        server_to_client: &str,
        application: &str,
    ) {
        assert_eq!(keys.signing[..], hex(signing), "signing");
        assert_eq!(keys.client_to_server[..], hex(client_to_server), "client to server");
        assert_eq!(keys.server_to_client[..], hex(server_to_client), "server to client");
        assert_eq!(keys.application[..], hex(application), "application");
    }

    // Microsoft's open specification blog, "SMB 2 and SMB 3 security in Windows 10: the anatomy of signing
    // and cryptographic keys": the examples for 3.0 and 3.1.1. Their EncryptionKey is the client's.
    #[test]
    fn published_keys_of_3_0() {
        for dialect in [Dialect::Smb300, Dialect::Smb302] {
            let key = hex("7CD451825D0450D235424E44BA6E78CC");
            check(
                &SessionKeys::derive(dialect, Some(Cipher::Aes128Ccm), &key, &key, None),
                "0B7E9C5CAC36C0F6EA9AB275298CEDCE",
                "FAD27796665B313EBB578F388632B4F7",
                "B0F0427F7CEB416D1D9DCC0CD4F99447",
                "BB23A4575AA26C721AF525AF15A87B4F",
            );
            assert_eq!(channel_signing_key(dialect, &key, None)[..], hex("0B7E9C5CAC36C0F6EA9AB275298CEDCE"));
        }
    }

    #[test]
    fn published_keys_of_3_1_1() {
        let key = hex("270E1BA896585EEB7AF3472D3B4C75A7");
        let hash: [u8; 64] = hex("
            0DD13628CC3ED218EF9DF9772D436D0887AB9814BFAE63A80AA845F36909DB79
            28622DDDAD522D9751640A459762C5A9D6BB084CBB3CE6BDADEF5D5BCE3C6C01")
        .try_into()
        .unwrap();
        check(
            &SessionKeys::derive(Dialect::Smb311, Some(Cipher::Aes128Gcm), &key, &key, Some(&hash)),
            "73FE7A9A77BEF0BDE49C650D8CCB5F76",
            "629BCBC54422A0F572B97F45989B6073",
            "E2AF0DCEFAC68DA71A0DFBD0D1350D74",
            "6D7AD7954E9EC61E907B4D473DC178FF",
        );
        assert_eq!(
            channel_signing_key(Dialect::Smb311, &key, Some(&hash))[..],
            hex("73FE7A9A77BEF0BDE49C650D8CCB5F76")
        );
    }

    // "Encryption in SMB 3.0: a protocol perspective" and "SMB 3.1.1 Encryption in Windows 10", where the key
    // that encrypts is the client's.
    #[test]
    fn published_encryption_keys() {
        let key = hex("B4546771B515F766A86735532DD6C4F0");
        let keys = SessionKeys::derive(Dialect::Smb300, Some(Cipher::Aes128Ccm), &key, &key, None);
        assert_eq!(keys.client_to_server[..], hex("261B72350558F2E9DCF613070383EDBF"));
        assert_eq!(keys.server_to_client[..], hex("8FE2B57EC34D2DB5B1A9727F526BBDB5"));

        let key = hex("419FDDF34C1E001909D362AE7FB6AF79");
        let hash: [u8; 64] = hex("
            B23F3CBFD69487D9832B79B1594A367CDD950909B774C3A4C412B4FCEA9EDDDB
            A7DB256BA2EA30E977F11F9B113247578E0E915C6D2A513B8F2FCA5707DC8770")
        .try_into()
        .unwrap();
        let keys = SessionKeys::derive(Dialect::Smb311, Some(Cipher::Aes128Gcm), &key, &key, Some(&hash));
        assert_eq!(keys.client_to_server[..], hex("A2F5E80E5D59103034F32E52F698E5EC"));
        assert_eq!(keys.server_to_client[..], hex("748C50868C90F302962A5C35F5F9A8BF"));
    }

    #[test]
    fn ciphers_of_256_bits_take_the_full_key() {
        let full: Vec<u8> = (0..32).collect();
        let hash = [7; 64];
        let derive = |cipher, full: &[u8]| {
            SessionKeys::derive(Dialect::Smb311, Some(cipher), &full[..16], full, Some(&hash))
        };
        let long = derive(Cipher::Aes256Gcm, &full);
        let short = derive(Cipher::Aes256Gcm, &full[..16]);
        let narrow = derive(Cipher::Aes128Gcm, &full);
        assert_eq!((long.client_to_server.len(), long.server_to_client.len()), (32, 32));
        assert_eq!((narrow.client_to_server.len(), narrow.signing.len()), (16, 16));
        assert_ne!(long.client_to_server, short.client_to_server);
        assert_ne!(
            long.client_to_server[..16],
            narrow.client_to_server[..],
            "the length is part of the input"
        );
        assert_eq!(long.signing, narrow.signing);
        assert_eq!(long.application, narrow.application);
    }

    #[test]
    fn before_3_0_the_session_key_signs() {
        let keys = SessionKeys::derive(Dialect::Smb210, None, &[1, 2, 3], &[1, 2, 3], None);
        let mut padded = [0; 16];
        padded[..3].copy_from_slice(&[1, 2, 3]);
        assert_eq!(keys.signing[..], padded);
        assert_eq!(keys.application[..], padded);
        assert!(keys.client_to_server.is_empty() && keys.server_to_client.is_empty());
        assert_eq!(channel_signing_key(Dialect::Smb202, &[1, 2, 3], None)[..], padded);
    }
}
