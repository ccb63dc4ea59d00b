//! Listing a directory: straight from the backend, with its positions; the cache is not asked, but learns the names.
//!
//! A page may have been read while a change was half done: the backend has made it, and the cache does not say so yet.
//! Who was told of it by the listing and then looked the name up would see it undone. So before a page is returned, the
//! changes that are under way in the directory are awaited, and their names are asked for again.

use std::sync::Arc;

use crate::Vfs;
use crate::backend::{BackendFile, DirEntry};
use crate::error::{FsError, Result};
use crate::fold::FoldedName;
use crate::node::Node;
use crate::sync::{Defect, defect};

impl<F: Default + Send + 'static> Vfs<F> {
    /// At most `max` names of `dir` from position `cookie` on (0: the start); none: the end. `file` is the directory,
    /// open for reading. A removed directory has no names.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn read_dir(
        &self,
        dir: &Arc<Node<F>>,
        file: &Arc<dyn BackendFile>,
        cookie: u64,
        max: usize,
        metadata: bool,
    ) -> Result<Vec<DirEntry>> {
        let open = Arc::as_ptr(file).cast::<()>() as usize;
        let mut cookie = cookie;
        loop {
            // By the way it makes the index. What comes and goes from here on is kept for it.
            let stamp = match dir.mount.revalidate {
                None if cookie == 0 => dir.stamp_for_index(),
                None => dir.stamp(),
                Some(_) => None,
            };
            let listing = stamp.and_then(|stamp| dir.index_listing(open, cookie, stamp));
            let mut page = file.read_dir(cookie, max, metadata).await?;
            if let Some(listing) = listing {
                dir.index_listed(listing, &page);
            }
            let changing = dir.changing();
            if changing.is_empty() || defect(Defect::UnsettledListing) {
                return Ok(page);
            }
            for slot in &changing {
                slot.settled().await;
            }
            let Some(last) = page.last().map(|entry| entry.cookie) else { return Ok(page) };
            let names: Vec<&FoldedName> = changing.iter().map(|slot| &slot.fold).collect();
            let mut kept = Vec::with_capacity(page.len());
            for mut entry in page.drain(..) {
                if names.contains(&&dir.mount.fold.fold(&entry.name)) {
                    match self.ask(dir, &entry.name.to_disk()).await {
                        Ok(Some(info)) => {
                            entry.kind = Some(info.metadata.kind);
                            entry.metadata = metadata.then_some(info.metadata);
                        }
                        Ok(None) => continue,
                        Err(FsError::PathNotFound) => return Ok(Vec::new()),
                        Err(error) => return Err(error),
                    }
                }
                kept.push(entry);
            }
            // A page whose every name went is not the end.
            if !kept.is_empty() {
                return Ok(kept);
            }
            cookie = last;
        }
    }
}
