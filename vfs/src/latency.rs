//! A wrapper that makes each call of a backend take a fixed time longer: a network share or a slow disk, for experiments and for the
//! proof that changes of different names in one directory do not wait for each other.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{
    Backend, BackendFile, BackendNode, Caps, CreateHow, DirEntry, NameSink, NodeInfo, OpenHow, Token, Watcher,
};
use crate::error::Fut;
use crate::fold::Fold;
use crate::metadata::{BackendKey, Metadata, SetMetadata, VolumeInfo};
use crate::name::{DiskName, Name};
use crate::sync::sleep;

/// `inner`, each call of which, and of its open files, begins after a delay.
pub struct Latency {
    inner: Arc<dyn Backend>,
    delay: Duration,
}

impl Latency {
    /// Delays each call of `inner` by `delay`.
    pub fn new(inner: Arc<dyn Backend>, delay: Duration) -> Latency {
        Latency { inner, delay }
    }

    fn file(&self, inner: Arc<dyn BackendFile>) -> Arc<dyn BackendFile> {
        Arc::new(LatencyFile { inner, delay: self.delay })
    }
}

/// The call is made, and begins to take effect, only after the delay.
macro_rules! later {
    ($self:ident, $call:expr) => {
        Box::pin(async move {
            sleep($self.delay).await;
            $call.await
        })
    };
}

impl Backend for Latency {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        later!(self, self.inner.root())
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        later!(self, self.inner.lookup(dir, name))
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        later!(self, self.inner.lookup_folded(dir, name, fold))
    }

    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        later!(self, self.inner.names(dir, sink))
    }

    fn moved(&self, node: &BackendNode, dir: &BackendNode, name: &DiskName) {
        self.inner.moved(node, dir, name);
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.inner.watcher()
    }

    fn token<'a>(&'a self, dir: &'a BackendNode) -> Fut<'a, Option<Token>> {
        later!(self, self.inner.token(dir))
    }

    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        Box::pin(async move {
            sleep(self.delay).await;
            let (info, file) = self.inner.create(dir, name, how).await?;
            Ok((info, self.file(file)))
        })
    }

    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        later!(self, self.inner.unlink(dir, name, expect))
    }

    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        later!(self, self.inner.rmdir(dir, name, expect))
    }

    fn rename<'a>(
        &'a self,
        from_dir: &'a BackendNode,
        from: &'a DiskName,
        expect: Option<&'a BackendKey>,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        later!(self, self.inner.rename(from_dir, from, expect, to_dir, to, replace))
    }

    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        // The inner backend knows its own files only.
        let node = node.as_any().downcast_ref::<LatencyFile>().map_or(node, |file| &*file.inner);
        later!(self, self.inner.link(node, to_dir, to, replace))
    }

    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        Box::pin(async move {
            sleep(self.delay).await;
            Ok(self.file(self.inner.open(dir, name, expect, how).await?))
        })
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        later!(self, self.inner.volume())
    }

    fn settle(&self) -> Fut<'_, ()> {
        self.inner.settle()
    }
}

struct LatencyFile {
    inner: Arc<dyn BackendFile>,
    delay: Duration,
}

impl BackendFile for LatencyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn metadata(&self) -> Fut<'_, Metadata> {
        later!(self, self.inner.metadata())
    }

    fn metadata_when_opened(&self) -> Option<Metadata> {
        self.inner.metadata_when_opened()
    }

    fn set_metadata<'a>(&'a self, set: &'a SetMetadata) -> Fut<'a, ()> {
        later!(self, self.inner.set_metadata(set))
    }

    fn read_at(&self, offset: u64, length: usize) -> Fut<'_, Bytes> {
        later!(self, self.inner.read_at(offset, length))
    }

    fn write_at<'a>(&'a self, offset: u64, data: Bytes) -> Fut<'a, usize> {
        later!(self, self.inner.write_at(offset, data))
    }

    fn flush(&self) -> Fut<'_, ()> {
        later!(self, self.inner.flush())
    }

    fn allocate(&self, bytes: u64) -> Fut<'_, ()> {
        later!(self, self.inner.allocate(bytes))
    }

    fn zero_range(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        later!(self, self.inner.zero_range(offset, length))
    }

    fn punch(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        later!(self, self.inner.punch(offset, length))
    }

    fn allocated_ranges(&self, offset: u64, length: u64) -> Fut<'_, Vec<(u64, u64)>> {
        later!(self, self.inner.allocated_ranges(offset, length))
    }

    fn read_dir(&self, cookie: u64, max: usize, metadata: bool) -> Fut<'_, Vec<DirEntry>> {
        later!(self, self.inner.read_dir(cookie, max, metadata))
    }

    fn readlink(&self) -> Fut<'_, Vec<u8>> {
        later!(self, self.inner.readlink())
    }

    fn get_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        later!(self, self.inner.get_xattr(name))
    }

    fn set_xattr<'a>(&'a self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        later!(self, self.inner.set_xattr(name, value))
    }

    fn remove_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, ()> {
        later!(self, self.inner.remove_xattr(name))
    }

    fn list_xattrs(&self) -> Fut<'_, Vec<String>> {
        later!(self, self.inner.list_xattrs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{Local, Options};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn each_call_takes_its_time_and_still_works() {
        const DELAY: Duration = Duration::from_millis(5);
        let path = std::env::temp_dir().join(format!("shoal-latency-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let backend = Latency::new(Arc::new(Local::open(&path, Options::default()).unwrap()), DELAY);
        let (a, b) = (DiskName::new(b"a"), DiskName::new(b"b"));

        let start = Instant::now();
        let root = backend.root().await.unwrap().node;
        let (info, file) = backend.create(&root, &a, &CreateHow::file()).await.unwrap();
        file.write_at(0, Bytes::from_static(b"hello")).await.unwrap();
        backend.link(&*file, &root, &b, false).await.unwrap();
        let found = backend.lookup(&root, &b).await.unwrap().unwrap();
        assert_eq!(found.metadata.key, info.metadata.key);
        let took = start.elapsed();
        assert!(took >= 5 * DELAY && took < 6 * DELAY, "{took:?}");
        std::fs::remove_dir_all(&path).unwrap();
    }
}
