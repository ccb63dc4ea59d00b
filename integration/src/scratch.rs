//! A temporary directory that is gone when the check ends, however it ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A fresh directory below the system's temporary directory, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one; `label` is part of its name.
    ///
    /// # Panics
    /// Where the temporary directory cannot be written: no check can run there.
    pub fn new(label: &str) -> Self {
        Scratch::below(&std::env::temp_dir(), label)
    }

    /// The same in memory, where the machine has a tmpfs for that.
    pub fn in_memory(label: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Scratch::below(memory, label) } else { Scratch::new(label) }
    }

    /// The same below `directory`.
    pub fn below(directory: &Path, label: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("shoal-{label}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a directory inside and returns its path.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("SHOAL_KEEP_SCRATCH").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Empties `directory` without removing it.
pub fn wipe(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
