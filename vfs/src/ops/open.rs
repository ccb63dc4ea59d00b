//! Opening what a link names.

use std::sync::Arc;

use crate::Vfs;
use crate::backend::{BackendFile, OpenHow};
use crate::error::{FsError, Result};
use crate::lookup::link::Link;
use crate::name::DiskName;

/// How often an object that keeps being renamed is run after.
const TRIES: usize = 16;

impl<F: Default + Send + 'static> Vfs<F> {
    /// Opens the link's object, wherever it stands now.
    ///
    /// # Errors
    /// `Stale`: the name means another object or nothing by now; the caller looks it up again. `SpecialFile` and
    /// `Symlink` for what is never opened; what the backend says.
    pub async fn open(&self, link: &Arc<Link<F>>, how: OpenHow) -> Result<Arc<dyn BackendFile>> {
        let node = link.node();
        let backend = &node.mount.backend;
        for _ in 0..TRIES {
            let moves = link.moves();
            let place = link.place_now();
            let opened = match &place {
                Some(place) => {
                    backend.open(Some(&place.dir.be), &place.name.to_disk(), &node.key(), how).await
                }
                None => backend.open(None, &DiskName::new(b"root"), &node.key(), how).await,
            };
            match opened {
                Err(FsError::NotFound | FsError::Stale | FsError::NotADirectory) => {}
                opened => return opened,
            }
            let Some(before) = place else { return Err(FsError::Stale) };
            // A rename of our own may be half done.
            self.settled(link).await;
            if link.is_gone() {
                // The mark comes before the removal, and may have come just now: others still find the name. Nobody is told that
                // it is gone until nobody is told that it is there.
                self.settled(link).await;
            }
            if link.moves() == moves || link.is_gone() {
                self.suspect_if_foreign(&before);
                return Err(FsError::Stale);
            }
        }
        Err(FsError::Stale)
    }

    fn suspect_if_foreign(&self, place: &crate::lookup::link::Place<F>) {
        if !place.dir.mount.trust {
            self.suspect(place);
        }
    }
}
