//! The accounts: who may log in, as `[users.NAME]` of the configuration, `users.toml` and `--user` say. Only NT hashes are kept
//! (MS-NLMP 3.3.2: NTLMv2 needs no more), and they are zeroed when they go.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shoal_protocol::auth::{self, Accounts, Lookup};
use zeroize::Zeroizing;

/// One account.
#[derive(Clone, PartialEq, Eq)]
pub struct UserSettings {
    /// Its name as it was written. Clients may spell it in any case.
    pub name: String,
    /// MD4 of its password in UTF-16: as good as the password itself.
    pub nt_hash: Zeroizing<[u8; 16]>,
    /// Whether logins are refused for now.
    pub disabled: bool,
}

impl UserSettings {
    /// An account that may log in with `password`.
    pub fn with_password(name: &str, password: &str) -> UserSettings {
        UserSettings { name: name.to_owned(), nt_hash: auth::nt_hash(password).into(), disabled: false }
    }
}

impl fmt::Debug for UserSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSettings")
            .field("name", &self.name)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// All accounts of a server.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_folded_name: HashMap<String, UserSettings>,
    guest_ok: bool,
}

impl Users {
    /// The accounts of `users`; of two with one name the later stays (the configuration has refused such a pair before).
    /// `guest_ok` says whether a name that nobody has becomes a guest.
    pub fn new(users: impl IntoIterator<Item = UserSettings>, guest_ok: bool) -> Users {
        Users { by_folded_name: users.into_iter().map(|user| (folded(&user.name), user)).collect(), guest_ok }
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.by_folded_name.len()
    }

    /// Whether there is no account at all.
    pub fn is_empty(&self) -> bool {
        self.by_folded_name.is_empty()
    }

    /// The account called `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&UserSettings> {
        self.by_folded_name.get(&folded(name))
    }

    /// Every account, by name.
    pub fn list(&self) -> Vec<&UserSettings> {
        let mut users: Vec<_> = self.by_folded_name.values().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }
}

/// The key that all spellings of a user's name share.
pub fn folded(name: &str) -> String {
    name.to_uppercase()
}

/// Keeps everybody else from changing the user file `path` for as long as the lock is held.
pub fn lock(path: &Path) -> io::Result<File> {
    let directory = File::open(directory_of(&real(path)?))?;
    directory.lock()?;
    Ok(directory)
}

/// Makes `users` all that the user file `path` holds: a new file, mode 0600, takes the place of the old one in one step.
pub fn save(path: &Path, users: &[UserSettings]) -> io::Result<()> {
    let mut text = Zeroizing::new(String::from(
        "# The users of a Shoal server, written by `shoal user`. Each hash is as good as its password.\n",
    ));
    for user in users {
        let name = toml::Value::String(user.name.clone());
        let _ = write!(text, "\n[users.{name}]\nnt_hash = \"{}\"\n", *hash_to_hex(&user.nt_hash));
        if user.disabled {
            text.push_str("disabled = true\n");
        }
    }
    let path = real(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(directory_of(&path))?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Where `path` leads if it is a symbolic link: the file is replaced, not the link.
fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        other => other,
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A hash as `users.toml` writes it.
pub fn hash_to_hex(hash: &[u8; 16]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(32));
    for byte in hash {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

/// The hash that 32 hex digits spell.
pub fn hash_from_hex(text: &str) -> Option<Zeroizing<[u8; 16]>> {
    if text.len() != 32 {
        return None;
    }
    let mut hash = Zeroizing::new([0; 16]);
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(hash)
}

impl Accounts for Users {
    // The domain is the client's guess (its own name, WORKGROUP, the share's host): there is one set of accounts whatever it says.
    // A name that nobody has takes the same path as one that somebody has; what differs is only the value at its end.
    fn nt_hash(&self, user: &str, _domain: &str) -> Lookup {
        match self.get(user) {
            Some(found) if found.disabled => Lookup::Disabled,
            Some(found) => Lookup::Hash(found.nt_hash.clone()),
            None => Lookup::Unknown,
        }
    }

    fn guest_ok(&self) -> bool {
        self.guest_ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let mut carol = UserSettings::with_password("carol", "x");
        carol.disabled = true;
        Users::new([UserSettings::with_password("Alice", "Secret1"), carol], true)
    }

    #[test]
    fn a_name_is_found_in_any_case_and_domain() {
        for name in ["alice", "ALICE", "Alice"] {
            match users().nt_hash(name, "ANYWHERE") {
                Lookup::Hash(hash) => assert_eq!(*hash, auth::nt_hash("Secret1")),
                _ => panic!("{name}"),
            }
        }
    }

    #[test]
    fn disabled_and_unknown_have_no_hash() {
        assert!(matches!(users().nt_hash("carol", ""), Lookup::Disabled));
        assert!(matches!(users().nt_hash("dave", ""), Lookup::Unknown));
        assert!(matches!(users().nt_hash("", ""), Lookup::Unknown));
        assert!(users().guest_ok());
    }

    #[test]
    fn a_hash_survives_its_spelling() {
        let hash = auth::nt_hash("Password");
        assert_eq!(*hash_to_hex(&hash), "a4f49c406510bdcab6824ee7c30fd852");
        assert_eq!(hash_from_hex("A4F49C406510BDCAB6824EE7C30FD852").as_deref(), Some(&hash));
        assert_eq!(hash_from_hex("a4f49c406510bdcab6824ee7c30fd85"), None);
        assert_eq!(hash_from_hex("a4f49c406510bdcab6824ee7c30fd85g"), None);
    }

    #[test]
    fn debug_shows_no_hash() {
        let text = format!("{:?}", users());
        assert!(text.contains("Alice") && !text.contains("nt_hash"), "{text}");
    }
}
