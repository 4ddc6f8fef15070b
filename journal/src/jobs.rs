use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::frames::Frame;
use crate::header::Before;
use crate::load::{self, Loaded};
use crate::segment::{Failure, Segment, Spare, is_no_room};
use crate::{Disk, OpenError};

/// How often a dropped segment is looked at again when somebody reads in it, before its file is removed instead of used again.
const READERS_WAITED_FOR: u32 = 100;

/// Work on files that the writer does not wait for, if it need not.
pub(crate) enum Job {
    /// Make a spare.
    Create { name: String, len: u64 },
    /// Read a part of a segment, to carry on what lives in it.
    Load { segment: Arc<Segment>, before: Before, mark: Option<Frame>, part_bytes: u64 },
    /// Take a segment out of the log: as a spare of this name if there is one and nobody reads in it.
    Retire { segment: Arc<Segment>, spare: Option<String> },
}

/// A job that is done.
pub(crate) enum Done {
    /// `None`: there is no room for it.
    Created(Result<Option<Spare>, Failure>),
    Loaded(Result<Loaded, Failure>),
    Retired(Result<Option<Spare>, Failure>),
    /// Nobody knows how far it came.
    Panicked,
}

/// Does jobs one after the other: on a thread of its own, or at once.
pub(crate) enum Jobs {
    AtOnce { disk: Arc<dyn Disk>, done: VecDeque<Done> },
    Thread { jobs: Option<Sender<Job>>, done: Receiver<Done>, waiting: usize, thread: Option<JoinHandle<()>> },
}

impl Jobs {
    pub(crate) fn at_once(disk: Arc<dyn Disk>) -> Jobs {
        Jobs::AtOnce { disk, done: VecDeque::new() }
    }

    /// Jobs on a thread; `wake` is called when one is done.
    pub(crate) fn on_thread(disk: Arc<dyn Disk>, wake: impl Fn() + Send + 'static) -> Result<Jobs, OpenError> {
        let (jobs, todo) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let work = move || {
            for job in todo {
                // The panic hook has reported it; whoever waits for the job must hear of it, too.
                let done = catch_unwind(AssertUnwindSafe(|| do_job(&*disk, job))).unwrap_or(Done::Panicked);
                if finished.send(done).is_err() {
                    return;
                }
                wake();
            }
        };
        let thread = thread::Builder::new().name("journal-files".into()).spawn(work);
        let thread = thread.map_err(Failure::new("start a thread for", "log"))?;
        Ok(Jobs::Thread { jobs: Some(jobs), done, waiting: 0, thread: Some(thread) })
    }

    pub(crate) fn start(&mut self, job: Job) {
        match self {
            Jobs::AtOnce { disk, done } => done.push_back(do_job(&**disk, job)),
            Jobs::Thread { jobs, waiting, .. } => {
                // The thread ends only with the sender.
                let _ = jobs.as_ref().map(|jobs| jobs.send(job));
                *waiting += 1;
            }
        }
    }

    /// A job that is done, if there is one.
    pub(crate) fn poll(&mut self) -> Option<Done> {
        match self {
            Jobs::AtOnce { done, .. } => done.pop_front(),
            Jobs::Thread { done, waiting, .. } => done.try_recv().ok().inspect(|_| *waiting -= 1),
        }
    }

    /// The next job that is done. `None` if none was started.
    pub(crate) fn wait(&mut self) -> Option<Done> {
        match self {
            Jobs::AtOnce { done, .. } => done.pop_front(),
            Jobs::Thread { waiting: 0, .. } => None,
            Jobs::Thread { done, waiting, .. } => {
                *waiting -= 1;
                Some(done.recv().unwrap_or(Done::Panicked))
            }
        }
    }

    /// Whether everything that was started was taken by `poll` or `wait`.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Jobs::AtOnce { done, .. } => done.is_empty(),
            Jobs::Thread { waiting, .. } => *waiting == 0,
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        if let Jobs::Thread { jobs, thread, .. } = self {
            drop(jobs.take());
            // A panic of it was reported by the panic hook.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

fn do_job(disk: &dyn Disk, job: Job) -> Done {
    match job {
        Job::Create { name, len } => Done::Created(create(disk, name, len)),
        Job::Load { segment, before, mark, part_bytes } => {
            let loaded = load::load_part(&segment, before, mark, part_bytes);
            Done::Loaded(loaded.map_err(Failure::new("read", &segment.name)))
        }
        Job::Retire { segment, spare } => Done::Retired(retire(disk, segment, spare)),
    }
}

fn create(disk: &dyn Disk, name: String, len: u64) -> Result<Option<Spare>, Failure> {
    match disk.create(&name, len) {
        Ok(file) => Ok(Some(Spare { name, file, len })),
        Err(error) if is_no_room(&error) => Ok(None),
        Err(source) => Err(Failure { doing: "create", name, source }),
    }
}

/// The removal is durable when this returns: had a crash kept this segment and taken the next one, messages would come back whose
/// settling was in the next one. And nothing is written into the file before its new name is durable.
fn retire(disk: &dyn Disk, segment: Arc<Segment>, spare: Option<String>) -> Result<Option<Spare>, Failure> {
    let name = &segment.name;
    let spare = spare.filter(|_| is_unread(&segment));
    match &spare {
        Some(spare) => disk.rename(name, spare).map_err(Failure::new("rename", name))?,
        None => disk.remove(name).map_err(Failure::new("remove", name))?,
    }
    disk.sync_names().map_err(Failure::new("sync the names after", name))?;
    Ok(spare.map(|name| Spare { name, file: Arc::clone(&segment.file), len: segment.len }))
}

/// Whether nobody holds on to the segment but the job. Nobody new can: it is not in the map any more.
fn is_unread(segment: &Arc<Segment>) -> bool {
    for _ in 0..READERS_WAITED_FOR {
        if Arc::strong_count(segment) == 1 {
            return true;
        }
        thread::yield_now();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskFile, MemoryDisk};
    use std::io;

    /// A disk on which nothing can be created.
    struct Panics(MemoryDisk);

    impl Disk for Panics {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            self.0.open(name)
        }

        fn create(&self, name: &str, _: u64) -> io::Result<Arc<dyn DiskFile>> {
            panic!("asked to create {name}")
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync_names(&self) -> io::Result<()> {
            self.0.sync_names()
        }

        fn keep_aside(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
            self.0.keep_aside(name, bytes)
        }
    }

    #[test]
    fn a_job_that_panics_is_told_from_one_that_was_never_started() {
        let (woken, wakes) = mpsc::channel();
        let mut jobs = Jobs::on_thread(Arc::new(Panics(MemoryDisk::new())), move || woken.send(()).unwrap()).unwrap();
        assert!(jobs.wait().is_none() && jobs.is_idle());
        for _ in 0..2 {
            jobs.start(Job::Create { name: "spare-1.log".into(), len: 8192 });
            assert!(!jobs.is_idle());
            assert!(matches!(jobs.wait(), Some(Done::Panicked)));
            assert_eq!(wakes.recv(), Ok(()), "whoever sleeps is woken for it");
        }
        assert!(jobs.poll().is_none() && jobs.is_idle());
    }
}
