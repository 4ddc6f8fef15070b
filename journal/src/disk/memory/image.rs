use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::{Crash, Unsynced};

/// Everything on a disk, twice: as the process sees it, and as it is after a power failure.
///
/// Bytes are shared between clones until one of them writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    live: Names,
    durable: Names,
    /// Changes of `live` that `durable` has not seen, oldest first.
    changes: Vec<Change>,
    aside: BTreeMap<String, Arc<[u8]>>,
}

type Names = BTreeMap<String, u64>;

#[derive(Clone, Debug, Hash)]
enum Change {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

#[derive(Clone, Debug, Default, Hash)]
struct Inode {
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// What `durable` has not seen, oldest first.
    writes: Vec<Write>,
    open: u32,
    reported_len: Option<u64>,
}

#[derive(Clone, Debug, Hash)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
    /// A sync of it failed: the system believes it is on disk and will not write it again.
    given_up: bool,
}

impl Image {
    pub(super) fn names(&self) -> Vec<String> {
        self.live.keys().cloned().collect()
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<u64> {
        let inode = *self.live.get(name).ok_or(ErrorKind::NotFound)?;
        self.hold(inode);
        Ok(inode)
    }

    pub(super) fn hold(&mut self, inode: u64) {
        self.inode(inode).open += 1;
    }

    pub(super) fn let_go(&mut self, inode: u64) {
        self.inode(inode).open -= 1;
        self.forget_unnamed();
    }

    pub(super) fn create(&mut self, name: &str, len: u64, synced: bool) -> io::Result<u64> {
        if self.live.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let zeros = vec![0; index(len)];
        let inode = match synced {
            true => Inode::synced(zeros),
            false => {
                let mut inode = Inode::default();
                inode.write(0, &zeros);
                inode
            }
        };
        let id = self.add(inode);
        self.change(Change::Link(name.to_owned(), id));
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if !self.live.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        if !self.live.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(Change::Unlink(name.to_owned()));
        Ok(())
    }

    pub(super) fn sync_names(&mut self) {
        self.durable = self.live.clone();
        self.changes.clear();
        self.forget_unnamed();
    }

    pub(super) fn is_aside(&self, name: &str) -> bool {
        self.aside.contains_key(name)
    }

    pub(super) fn keep_aside(&mut self, name: &str, bytes: &[u8]) {
        self.aside.insert(name.to_owned(), bytes.into());
    }

    pub(super) fn len(&self, inode: u64) -> u64 {
        self.inodes[&inode].reported_len.unwrap_or_else(|| self.real_len(inode))
    }

    pub(super) fn real_len(&self, inode: u64) -> u64 {
        self.inodes[&inode].live.len() as u64
    }

    pub(super) fn read(&self, inode: u64, offset: u64, into: &mut [u8]) -> usize {
        let bytes = self.inodes[&inode].live.get(index(offset)..).unwrap_or(&[]);
        let read = bytes.len().min(into.len());
        into[..read].copy_from_slice(&bytes[..read]);
        read
    }

    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        self.inode(inode).write(index(offset), bytes);
    }

    pub(super) fn sync(&mut self, inode: u64) {
        self.inode(inode).sync();
    }

    pub(super) fn give_up_on(&mut self, inode: u64) {
        for write in &mut self.inode(inode).writes {
            write.given_up = true;
        }
    }

    /// What the next process finds.
    pub(super) fn crash(&mut self, crash: Crash) {
        for inode in self.inodes.values_mut() {
            inode.open = 0;
        }
        if let Crash::PowerLoss(unsynced) = crash {
            let mut choice = Choice::new(unsynced);
            let kept = choice.names(self.changes.len());
            for change in self.changes.drain(..).take(kept) {
                change.apply(&mut self.durable);
            }
            self.live = self.durable.clone();
            for inode in self.inodes.values_mut() {
                inode.lose_power(&mut choice);
            }
        }
        self.forget_unnamed();
    }

    pub(super) fn used(&self) -> u64 {
        let named = |id: &u64| self.live.values().any(|named| named == id);
        let files = self.inodes.iter().filter(|(id, inode)| inode.open > 0 || named(id));
        let aside: usize = self.aside.values().map(|bytes| bytes.len()).sum();
        files.map(|(_, inode)| inode.live.len() as u64).sum::<u64>() + aside as u64
    }

    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.live.iter().map(|(name, inode)| (name.clone(), self.inodes[inode].live.to_vec())).collect()
    }

    pub(super) fn aside(&self) -> Vec<(String, Vec<u8>)> {
        self.aside.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect()
    }

    pub(super) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let id = self.add(Inode::synced(bytes));
        self.live.insert(name.to_owned(), id);
        self.durable.insert(name.to_owned(), id);
    }

    pub(super) fn flip(&mut self, name: &str, bit: u64) -> bool {
        let Some(inode) = self.named(name) else { return false };
        let flip = |bytes: &mut Arc<Vec<u8>>| match Arc::make_mut(bytes).get_mut(index(bit / 8)) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        };
        flip(&mut inode.durable);
        flip(&mut inode.live)
    }

    pub(super) fn set_len(&mut self, name: &str, len: u64) {
        if let Some(inode) = self.named(name) {
            Arc::make_mut(&mut inode.live).resize(index(len), 0);
            Arc::make_mut(&mut inode.durable).resize(index(len), 0);
            inode.writes.clear();
        }
    }

    pub(super) fn report_len(&mut self, name: &str, len: u64) {
        if let Some(inode) = self.named(name) {
            inode.reported_len = Some(len);
        }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    fn inode(&mut self, id: u64) -> &mut Inode {
        self.inodes.get_mut(&id).expect("an inode stays while it has a name or is open")
    }

    fn named(&mut self, name: &str) -> Option<&mut Inode> {
        let id = *self.live.get(name)?;
        self.inodes.get_mut(&id)
    }

    /// Removes what nobody can reach any more, whatever happens.
    fn forget_unnamed(&mut self) {
        // A change that is not synced may be undone, or done only in part.
        if self.changes.is_empty() {
            let Image { inodes, live, .. } = self;
            inodes.retain(|id, inode| inode.open > 0 || live.values().any(|named| named == id));
        }
    }
}

/// How many files there ever were is nothing anybody can find.
impl Hash for Image {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.inodes, &self.live, &self.durable, &self.changes, &self.aside).hash(state);
    }
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Change::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Change::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl Inode {
    fn synced(bytes: Vec<u8>) -> Inode {
        let bytes = Arc::new(bytes);
        Inode { live: bytes.clone(), durable: bytes, ..Inode::default() }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        put_at(&mut self.live, offset, bytes);
        self.writes.push(Write { offset, bytes: bytes.to_vec(), given_up: false });
    }

    fn sync(&mut self) {
        let synced: Vec<Write> = self.writes.extract_if(.., |write| !write.given_up).collect();
        for write in &synced {
            put_at(&mut self.durable, write.offset, &write.bytes);
            // What is left was written before: it may get to the disk yet, but not over what is there now.
            self.writes.iter_mut().for_each(|given_up| given_up.take_from(write));
        }
    }

    fn lose_power(&mut self, choice: &mut Choice) {
        for write in self.writes.drain(..) {
            choice.keep(&write, &mut self.durable);
        }
        self.live = self.durable.clone();
    }
}

impl Write {
    /// Where both write, has the bytes of `other`.
    fn take_from(&mut self, other: &Write) {
        let from = self.offset.max(other.offset);
        let to = (self.offset + self.bytes.len()).min(other.offset + other.bytes.len());
        if from < to {
            let bytes = &other.bytes[from - other.offset..to - other.offset];
            self.bytes[from - self.offset..to - self.offset].copy_from_slice(bytes);
        }
    }
}

/// Decides what is kept of what was not synced.
struct Choice {
    unsynced: Unsynced,
    random: u64,
}

impl Choice {
    fn new(unsynced: Unsynced) -> Choice {
        let random = match unsynced {
            Unsynced::Random(seed) => seed,
            _ => 0,
        };
        Choice { unsynced, random }
    }

    /// How many of the changes of names are kept.
    fn names(&mut self, changes: usize) -> usize {
        match self.unsynced {
            Unsynced::Lost | Unsynced::Writes => 0,
            Unsynced::Kept | Unsynced::Names => changes,
            Unsynced::Random(_) => self.below(changes + 1),
        }
    }

    fn keep(&mut self, write: &Write, durable: &mut Arc<Vec<u8>>) {
        match self.unsynced {
            Unsynced::Lost | Unsynced::Names => {}
            Unsynced::Kept | Unsynced::Writes => put_at(durable, write.offset, &write.bytes),
            Unsynced::Random(_) => match self.below(4) {
                0 => {}
                1 => put_at(durable, write.offset, &write.bytes),
                2 => {
                    let torn = self.below(write.bytes.len() + 1);
                    put_at(durable, write.offset, &write.bytes[..torn]);
                }
                _ => self.keep_sectors(write, durable),
            },
        }
    }

    fn keep_sectors(&mut self, write: &Write, durable: &mut Arc<Vec<u8>>) {
        let mut from = 0;
        while from < write.bytes.len() {
            let offset = write.offset + from;
            let to = write.bytes.len().min(from + SECTOR_BYTES - offset % SECTOR_BYTES);
            if self.below(2) == 0 {
                put_at(durable, offset, &write.bytes[from..to]);
            }
            from = to;
        }
    }

    /// SplitMix64: a good spread from any seed, and the same on every machine.
    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        index((mixed ^ (mixed >> 31)) % end as u64)
    }
}

fn put_at(bytes: &mut Arc<Vec<u8>>, offset: usize, new: &[u8]) {
    let bytes = Arc::make_mut(bytes);
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("what is in memory has an index")
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
