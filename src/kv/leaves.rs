//! The files of a sled database, read without sled.
//!
//! sled refuses everything once one page of it cannot be read, so what is left is read from its files. A database is
//! a list of leaves (`metadata/`) and the leaves themselves in slots of equal size (`slabs/`):
//!
//! | file | what |
//! |---|---|
//! | `metadata/snapshot_N` | one frame: every leaf as of log `N` |
//! | `metadata/log_M` | a frame for each flush after it: leaves that were written or freed |
//! | `slabs/SIZE` | slots of `SIZE` bytes, each with a leaf, its length and a CRC-32 at the end |
//!
//! A frame is its length (6 bytes) with 2 bytes of CRC, zstd-compressed items, and a CRC-32. An item is an object, its
//! tree, its slot (0: freed) and the lowest key of the leaf, 8 bytes each but for the key behind its length. A leaf is
//! zstd-compressed bincode. Integers are little-endian. As of sled 1.0.0-alpha.124, which is exactly pinned.
//!
//! With the list at hand a leaf that is damaged is known by its bounds. When the list cannot be read either, the leaves
//! are looked for in the slots; leaves that were freed are there too, and of those with the same lowest key the one that
//! was changed most often is taken. So some of what is found may be old, as in a backup.
//!
//! Reading allocates no more than files hold, and never panics. Nothing is written here.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a decompressed leaf at most: 128 entries of 8 KiB, with keys.
const LEAF_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a decompressed frame at most.
const FRAME_BYTES_MAX: u64 = 4 << 30;
/// The tree of the names of trees, and the tree that has none.
const NAMES: u64 = 0;
const MAIN: u64 = 1;
/// How often the list is read again when sled is just rewriting it, and the pause before.
const LIST_ATTEMPTS_MAX: usize = 5;
const LIST_PAUSE: Duration = Duration::from_millis(50);

/// A key with its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Where a leaf is: the number of a slab's size, and the slot in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    size: u64,
    number: u64,
}

/// A tree as its leaves: lowest key and place of each.
type Tree = BTreeMap<Vec<u8>, Slot>;

/// Where every leaf of a database is.
#[derive(Debug)]
pub(super) struct Leaves {
    slabs: PathBuf,
    main: Tree,
    chunks: Tree,
    /// Whether the list of leaves was whole.
    listed: bool,
}

/// A leaf of the main tree by its bounds: from its lowest key up to the next leaf's, `None` when there is none.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) from: Vec<u8>,
    pub(super) to: Option<Vec<u8>>,
}

impl Leaves {
    /// Reads the list of the leaves in `folder`; looks for them when it is damaged.
    pub(super) fn read(folder: &Path) -> Self {
        let slabs = folder.join("slabs");
        let list = (0..LIST_ATTEMPTS_MAX).find_map(|attempt| {
            if attempt > 0 {
                std::thread::sleep(LIST_PAUSE);
            }
            List::read(&folder.join("metadata")).ok()
        });
        match list {
            Some(list) => {
                let (mut main, mut chunks) = (Tree::new(), Tree::new());
                for (tree, low, slot) in list.leaves.into_values() {
                    match tree {
                        NAMES => {}
                        MAIN => _ = main.insert(low, slot),
                        _ => _ = chunks.insert(low, slot),
                    }
                }
                Self { slabs, main, chunks, listed: list.whole }
            }
            None => Self::search(slabs),
        }
    }

    /// Looks for leaves in every slot. Which tree one is of is seen by what is in it.
    fn search(slabs: PathBuf) -> Self {
        let mut found: [BTreeMap<Vec<u8>, (u64, Slot)>; 2] = Default::default();
        for size in sizes() {
            let Ok(file) = File::open(slabs.join(size.to_string())) else { continue };
            let slots = file.metadata().map_or(0, |data| data.len() / size);
            for number in 0..slots {
                let slot = Slot { size, number };
                let Some(leaf) = read_slot(&file, slot).and_then(|bytes| Leaf::decode(&bytes)) else { continue };
                let Some(tree) = leaf.tree() else { continue };
                let newest = found[tree].entry(leaf.low).or_insert((leaf.mutations, slot));
                if newest.0 <= leaf.mutations {
                    *newest = (leaf.mutations, slot);
                }
            }
        }
        let [main, chunks] = found.map(|leaves| leaves.into_iter().map(|(low, (_, slot))| (low, slot)).collect());
        Self { slabs, main, chunks, listed: false }
    }

    /// Whether every leaf that there was is known by its bounds.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Leaves of the main tree.
    pub(super) fn count(&self) -> u64 {
        self.main.len() as u64
    }

    /// The leaves of the main tree in order, each with what is in it, which is nothing when it cannot be read.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Bounds, Option<Vec<Pair>>)> {
        let ends = self.main.keys().skip(1).map(|key| Some(key.clone())).chain([None]);
        self.main.iter().zip(ends).map(|((low, slot), to)| {
            let pairs = self.open(low, *slot);
            (Bounds { from: low.clone(), to }, pairs)
        })
    }

    /// The leaf of the main tree in which a key would be: its bounds, and what is in it when it can be read.
    pub(super) fn around(&self, key: &[u8]) -> (Bounds, Option<Vec<Pair>>) {
        let to = self.main.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next();
        let to = to.map(|(low, _)| low.clone());
        match self.main.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back() {
            Some((low, slot)) => (Bounds { from: low.clone(), to }, self.open(low, *slot)),
            None => (Bounds { from: Vec::new(), to }, None),
        }
    }

    /// A value of the tree of chunks; nothing too when its leaf cannot be read.
    pub(super) fn chunk(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (low, slot) = self.chunks.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let pairs = self.open(low, *slot)?;
        pairs.into_iter().find_map(|(found, value)| (found == key).then_some(value))
    }

    fn open(&self, low: &[u8], slot: Slot) -> Option<Vec<Pair>> {
        let file = File::open(self.slabs.join(slot.size.to_string())).ok()?;
        let leaf = Leaf::decode(&read_slot(&file, slot)?)?;
        // A slot that was given to another leaf since holds that one.
        (leaf.low == low).then_some(leaf.pairs)
    }
}

/// Whether sled may be let at a database: its list of leaves is whole, and the slots are there. sled itself would drop
/// the rest of a log behind a damaged frame, and wait forever for a leaf whose slot holds another one.
///
/// # Errors
/// What is wrong.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    let list = List::read(&folder.join("metadata")).map_err(|error| format!("the list of its pages: {error}"))?;
    if !list.whole {
        return Err("the list of its pages is damaged".into());
    }
    let mut lengths = HashMap::new();
    for (_, _, slot) in list.leaves.values() {
        let path = folder.join("slabs").join(slot.size.to_string());
        let length = *lengths.entry(slot.size).or_insert_with(|| fs::metadata(path).map_or(0, |data| data.len()));
        if slot.number.checked_add(1).and_then(|slots| slots.checked_mul(slot.size)).is_none_or(|end| end > length) {
            return Err(format!("the file of its pages of {} bytes is too short", slot.size));
        }
    }
    Ok(())
}

/// The list of all leaves.
#[derive(Debug, Default)]
struct List {
    /// Tree, lowest key and place of each object.
    leaves: HashMap<u64, (u64, Vec<u8>, Slot)>,
    whole: bool,
}

impl List {
    /// # Errors
    /// When there is nothing to begin with: the snapshot is missing or damaged.
    fn read(folder: &Path) -> io::Result<Self> {
        let (mut snapshots, mut logs) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let number = |prefix| name.strip_prefix(prefix).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            snapshots.extend(number("snapshot_"));
            logs.extend(number("log_"));
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is none");
        let last = snapshots.into_iter().max().ok_or_else(missing)?;
        let mut list = Self { leaves: HashMap::new(), whole: true };
        let snapshot = fs::read(folder.join(format!("snapshot_{last:016x}")))?;
        match Frame::read(&snapshot) {
            Frame::Items(items, _) => list.take(items),
            Frame::Damaged(_) | Frame::Unknown => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
        logs.retain(|log| *log > last);
        logs.sort_unstable();
        for (index, log) in logs.iter().enumerate() {
            list.whole &= *log == last + 1 + index as u64;
            let bytes = fs::read(folder.join(format!("log_{log:016x}")))?;
            list.take_log(&bytes, index + 1 == logs.len());
        }
        Ok(list)
    }

    /// Takes the frames of a log. The last log may end in a frame that was being written when the power went.
    fn take_log(&mut self, mut bytes: &[u8], is_last: bool) {
        while !bytes.is_empty() {
            match Frame::read(bytes) {
                Frame::Items(items, length) => {
                    self.take(items);
                    bytes = &bytes[length..];
                }
                Frame::Damaged(length) if length < bytes.len() => {
                    self.whole = false;
                    bytes = &bytes[length..];
                }
                Frame::Damaged(_) => {
                    self.whole &= is_last;
                    return;
                }
                Frame::Unknown => {
                    self.whole &= is_last && (bytes.len() < 8 || bytes.iter().all(|byte| *byte == 0));
                    return;
                }
            }
        }
    }

    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item.slot {
                Some(slot) => _ = self.leaves.insert(item.object, (item.tree, item.low, slot)),
                None => _ = self.leaves.remove(&item.object),
            }
        }
    }
}

struct Item {
    object: u64,
    tree: u64,
    slot: Option<Slot>,
    low: Vec<u8>,
}

/// What the next bytes of a list hold.
enum Frame {
    /// Items, and how long the frame is.
    Items(Vec<Item>, usize),
    /// A frame whose length is known, and nothing else.
    Damaged(usize),
    /// Not even that.
    Unknown,
}

impl Frame {
    fn read(bytes: &[u8]) -> Self {
        let Some(head) = bytes.first_chunk::<8>() else { return Self::Unknown };
        if (crc32fast::hash(&head[..6]) as u16).to_le_bytes() != head[6..] {
            return Self::Unknown;
        }
        let mut length = *head;
        (length[6], length[7]) = (0, 0);
        let Ok(length) = usize::try_from(u64::from_le_bytes(length)) else { return Self::Unknown };
        let (end, whole) = (8 + length, 12 + length);
        let crc = |crc: &[u8]| crc32fast::hash(&bytes[..end]) ^ 0xaf == u32_at(crc, 0);
        match bytes.get(end..whole) {
            Some(stored) if crc(stored) => match Item::all(&bytes[8..end]) {
                Some(items) => Self::Items(items, whole),
                None => Self::Damaged(whole),
            },
            Some(_) | None => Self::Damaged(whole),
        }
    }
}

impl Item {
    fn all(compressed: &[u8]) -> Option<Vec<Self>> {
        let bytes = decompress(compressed, FRAME_BYTES_MAX)?;
        let mut input = Input(&bytes);
        let mut items = Vec::new();
        while !input.0.is_empty() {
            let (object, tree, slot) = (input.number()?, input.number()?, Slot::parse(input.number()?));
            let low = input.bytes()?.to_vec();
            items.push(Self { object, tree, slot: slot?, low });
        }
        Some(items)
    }
}

impl Slot {
    /// The slot behind a location: nothing for one that was freed. `None` when there is no such slab.
    fn parse(location: u64) -> Option<Option<Self>> {
        let Some(slab) = (location >> 56).checked_sub(1) else { return Some(None) };
        let size = sizes().nth(usize::try_from(slab).ok()?)?;
        Some(Some(Self { size, number: location & ((1 << 56) - 1) }))
    }
}

/// The bytes of a leaf in a slot, when they are intact.
fn read_slot(file: &File, slot: Slot) -> Option<Vec<u8>> {
    let size = usize::try_from(slot.size).ok()?;
    let offset = slot.number.checked_mul(slot.size)?;
    if offset.checked_add(slot.size)? > file.metadata().ok()?.len() {
        return None;
    }
    let mut data = vec![0; size];
    read_at(file, &mut data, offset).ok()?;
    let (body, crc) = data.split_at(size - 4);
    if crc32fast::hash(body) ^ 0xaf != u32_at(crc, 0) {
        return None;
    }
    // The length stands before the checksum, in as many bytes as lengths of that size take.
    let width = match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    let mut length = [0; 8];
    length[..width].copy_from_slice(&body[body.len() - width..]);
    let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
    data.truncate(length.min(size - 4 - width));
    Some(data)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

struct Leaf {
    low: Vec<u8>,
    mutations: u64,
    pairs: Vec<Pair>,
}

impl Leaf {
    fn decode(compressed: &[u8]) -> Option<Self> {
        let bytes = decompress(compressed, LEAF_BYTES_MAX)?;
        let mut input = Input(&bytes);
        let low = input.bytes()?.to_vec();
        match input.byte()? {
            0 => {}
            _ => _ = input.bytes()?,
        }
        let prefix = low.get(..usize::try_from(input.number()?).ok()?)?;
        let count = input.number()?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let key = [prefix, input.bytes()?].concat();
            pairs.push((key, input.bytes()?.to_vec()));
        }
        let (_in_memory, mutations) = (input.number()?, input.number()?);
        Some(Self { low, mutations, pairs })
    }

    /// Which of the two trees a leaf is of that was found without a list: keys of chunks are digests with a number
    /// behind, see `sled`.
    fn tree(&self) -> Option<usize> {
        let is_chunk = |key: &[u8]| key.len() == 24 && key[16..22] == [0; 6];
        let (key, _) = self.pairs.first()?;
        if self.pairs.iter().all(|(key, _)| is_chunk(key)) {
            return Some(1);
        }
        // The tree of names has one key.
        (key != super::sled::CHUNKS_TREE.as_bytes()).then_some(0)
    }
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn decompress(bytes: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::new(bytes).ok()?.take(most).read_to_end(&mut plain).ok()?;
    Some(plain)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The sizes of slots, ascending: four to a doubling up to 64 KiB, but from 64 bytes five at first, then two.
fn sizes() -> impl Iterator<Item = u64> {
    let fine = (6..16).flat_map(|power| (4..8).map(move |quarter| quarter << (power - 2)));
    let coarse = [65_536, 98_304, 131_072, 163_840, 196_608, 262_144];
    let doubling = (18..34).flat_map(|power| [3 << (power - 1), 1 << (power + 1)]);
    fine.chain(coarse).chain(doubling).take(78)
}
