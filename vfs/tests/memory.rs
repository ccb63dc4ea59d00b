//! What only the storage in memory can show: its bound, its holes, its large directories.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

fn disk(text: &str) -> DiskName {
    Name::from_str(text).expect("a name").to_disk()
}

struct Bed {
    memory: Arc<Memory>,
    root: BackendNode,
}

impl Bed {
    async fn new(limit: u64) -> Bed {
        let memory = Memory::new(MemoryOptions { limit, ..MemoryOptions::default() });
        let root = memory.root().await.expect("tells").node;
        Bed { memory, root }
    }

    async fn file(&self, text: &str) -> Result<(NodeInfo, Arc<dyn BackendFile>)> {
        self.memory.create(&self.root, &disk(text), &CreateHow::file()).await
    }

    async fn free(&self) -> u64 {
        self.memory.volume().await.expect("tells").free_bytes
    }
}

#[tokio::test]
async fn the_bound_holds_and_what_is_removed_comes_back() {
    let bed = Bed::new(1 << 20).await;
    let free = bed.free().await;
    let (info, file) = bed.file("x").await.expect("creates");
    let half = Bytes::from(vec![1; 512 << 10]);
    file.write_at(0, half.clone()).await.expect("writes");
    // The second half does not fit beside the file itself; nothing of it is written.
    assert_eq!(file.write_at(512 << 10, half.clone()).await, Err(FsError::NoSpace));
    assert_eq!(file.metadata().await.expect("tells").size, 512 << 10);
    // Over what is there it does.
    file.write_at(0, half).await.expect("writes");
    assert_eq!(file.allocate(2 << 20).await, Err(FsError::NoSpace));
    let mut made = 0;
    while bed.file(&format!("n{made}")).await.is_ok() {
        made += 1;
        assert!(made < 10_000, "names are not counted");
    }
    assert_eq!(bed.file("one more").await.err(), Some(FsError::NoSpace));
    bed.memory.unlink(&bed.root, &disk("x"), &info.metadata.key).await.expect("removes");
    assert!(bed.free().await < 512 << 10, "an open file keeps its space");
    drop((file, info));
    for i in 0..made {
        let info =
            bed.memory.lookup(&bed.root, &disk(&format!("n{i}"))).await.expect("looks up").expect("is there");
        bed.memory.unlink(&bed.root, &disk(&format!("n{i}")), &info.metadata.key).await.expect("removes");
    }
    assert_eq!(bed.free().await, free);
}

#[tokio::test]
async fn holes_take_nothing() {
    let bed = Bed::new(1 << 20).await;
    let (_, file) = bed.file("x").await.expect("creates");
    let huge = 1 << 50;
    file.set_metadata(&SetMetadata { size: Some(huge), ..SetMetadata::default() }).await.expect("grows");
    file.write_at(huge - 10, Bytes::from_static(b"0123456789")).await.expect("writes");
    file.write_at(100_000, Bytes::from_static(b"x")).await.expect("writes");
    let metadata = file.metadata().await.expect("tells");
    assert_eq!(metadata.size, huge);
    assert!(metadata.allocated <= 256 << 10, "{}", metadata.allocated);
    let ranges = file.allocated_ranges(0, u64::MAX).await.expect("tells");
    assert_eq!(ranges.len(), 2);
    assert!(ranges[0].0 <= 100_000 && ranges[0].0 + ranges[0].1 > 100_000, "{ranges:?}");
    assert_eq!(ranges[1].0 + ranges[1].1, huge);
    assert!(file.allocated_ranges(200_000, 1 << 40).await.expect("tells").is_empty());
    file.punch(0, huge).await.expect("punches");
    assert_eq!(file.metadata().await.expect("tells").allocated, 0);
    assert!(file.allocated_ranges(0, u64::MAX).await.expect("tells").is_empty());
    assert_eq!(file.read_at(huge - 10, 100).await.expect("reads"), Bytes::from_static(&[0; 10]));
    file.allocate(64 << 10).await.expect("reserves");
    assert_eq!(file.metadata().await.expect("tells").allocated, 64 << 10);
}

#[tokio::test]
async fn large_directories_are_no_scan() {
    const NAMES: usize = 100_000;
    let bed = Bed::new(1 << 30).await;
    let start = Instant::now();
    for i in 0..NAMES {
        bed.file(&format!("name{i}")).await.expect("creates");
    }
    let created = start.elapsed();
    let key = bed.memory.root().await.expect("tells").metadata.key;
    let dir = bed
        .memory
        .open(None, &disk("root"), &key, OpenHow { read: true, write: false })
        .await
        .expect("opens");
    let start = Instant::now();
    let (mut cookie, mut seen) = (0, 0);
    loop {
        let page = dir.read_dir(cookie, 1_000, false).await.expect("lists");
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        seen += page.len();
    }
    assert_eq!(seen, NAMES);
    let listed = start.elapsed();
    let absent = Name::from_str("ABSENT").expect("a name");
    let start = Instant::now();
    for _ in 0..1_000 {
        let found = bed.memory.lookup_folded(&bed.root, &absent, &Fold::Insensitive).await.expect("looks up");
        assert!(found.is_empty());
    }
    let looked = start.elapsed();
    // Generous: debug builds on a busy machine. A scan a name would take minutes.
    assert!(
        created.as_secs() < 20 && listed.as_secs() < 10 && looked.as_secs() < 1,
        "{created:?} {listed:?} {looked:?}"
    );
}

#[tokio::test]
async fn a_deep_tree_goes_without_a_deep_stack() {
    let bed = Bed::new(1 << 30).await;
    let vfs = Vfs::<()>::new(Options::default());
    let root =
        vfs.mount(Arc::clone(&bed.memory) as Arc<dyn Backend>, Fold::Insensitive).await.expect("mounts");
    let mut dir = Arc::clone(root.link().node());
    let name = Name::from_str("d").expect("a name");
    for _ in 0..50_000 {
        let made = vfs.create(&dir, &name, CreateHow::directory(), |_, _| ()).await.expect("creates");
        let Creation::Created { link, .. } = made else { panic!("exists") };
        dir = Arc::clone(link.node());
    }
    assert!(dir.is_below(root.link().node()));
    drop((vfs, root));
    drop(dir);
    drop(bed);
}
