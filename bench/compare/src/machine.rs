//! What the machine itself can do: the floor under every figure.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// The unit in which disks and file systems write.
pub(crate) const BLOCK: usize = 4 << 10;
/// A group of 256 messages of 1.9 KB.
const GROUP: usize = 480_000;
/// Bytes of the file that is overwritten.
const FILE_BYTES: usize = 64 << 20;
const SYNCS: usize = 120;
const ROUND_TRIPS: usize = 500;
/// Pairs of threads that are tried: whether two of them share a core decides what a round trip takes.
const PAIRS: usize = 9;
/// Bytes of a reply like `ACK <id>`.
const REPLY_BYTES: usize = 41;

/// Medians in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Floor {
    /// Overwriting one 4 KiB block of a preallocated file, and fdatasync.
    pub(crate) sync_block_us: f64,
    /// The same for 480 KB.
    pub(crate) sync_group_us: f64,
    /// The same for one message, rounded up to whole blocks.
    pub(crate) sync_message_us: f64,
    /// A message to a thread behind a loopback connection, and a short reply.
    pub(crate) round_trip_us: f64,
    /// The same for the pair of threads that was fastest.
    pub(crate) round_trip_least_us: f64,
}

impl Floor {
    /// Measures in `directory` with messages of `message_bytes`.
    pub(crate) fn measure(directory: &Path, message_bytes: usize) -> Result<Floor> {
        let path = directory.join("floor");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        // Written, not only reserved: an unwritten extent has to be converted, and that is a change of metadata.
        let ones = vec![1; 1 << 20];
        (0..FILE_BYTES / ones.len()).try_for_each(|_| (&file).write_all(&ones))?;
        file.sync_all()?;
        let round_trips = (0..PAIRS).map(|_| round_trip(message_bytes)).collect::<Result<Vec<f64>>>()?;
        let floor = Floor {
            sync_block_us: sync(&file, BLOCK)?,
            sync_group_us: sync(&file, GROUP)?,
            sync_message_us: sync(&file, message_bytes.next_multiple_of(BLOCK))?,
            round_trip_least_us: round_trips.iter().copied().fold(f64::INFINITY, f64::min),
            round_trip_us: median(round_trips).unwrap_or(0.0),
        };
        fs::remove_file(path)?;
        Ok(floor)
    }

    /// The least a synced confirm can take: the message over, on the disk, the reply back.
    pub(crate) fn confirm_us(&self) -> f64 {
        self.sync_message_us + self.round_trip_us
    }

    /// The same with the shortest round trip.
    pub(crate) fn confirm_least_us(&self) -> f64 {
        self.sync_message_us + self.round_trip_least_us
    }

    /// The median of each number by itself.
    pub(crate) fn median(floors: &[Floor]) -> Option<Floor> {
        let of = |number: fn(&Floor) -> f64| median(floors.iter().map(number).collect());
        Some(Floor {
            sync_block_us: of(|floor| floor.sync_block_us)?,
            sync_group_us: of(|floor| floor.sync_group_us)?,
            sync_message_us: of(|floor| floor.sync_message_us)?,
            round_trip_us: of(|floor| floor.round_trip_us)?,
            round_trip_least_us: of(|floor| floor.round_trip_least_us)?,
        })
    }
}

/// The middle value; of an even number of values the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

fn sync(file: &File, bytes: usize) -> Result<f64> {
    let data = vec![2; bytes];
    let slots = FILE_BYTES / bytes;
    timed(SYNCS, |index| {
        file.write_all_at(&data, (index % slots * bytes) as u64)?;
        Ok(file.sync_data()?)
    })
}

fn round_trip(bytes: usize) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut message = vec![0; bytes];
            // Ends when the client is dropped.
            while server.read_exact(&mut message).is_ok() && server.write_all(&[0; REPLY_BYTES]).is_ok() {}
        });
        let message = vec![0; bytes];
        let mut reply = [0; REPLY_BYTES];
        let measured = timed(ROUND_TRIPS, |_| {
            client.write_all(&message)?;
            Ok(client.read_exact(&mut reply)?)
        });
        drop(client);
        measured
    })
}

/// The median time of `count` calls, in microseconds.
fn timed(count: usize, mut one: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        let start = Instant::now();
        one(index)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times).unwrap_or(0.0))
}

/// What the figures were taken on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
}

impl Machine {
    pub(crate) fn look(directory: &Path) -> Result<Machine> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Ok(Machine {
            cores: thread::available_parallelism()?.get(),
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(directory)?,
            started: now.as_secs(),
        })
    }
}

fn file_system(directory: &Path) -> Result<String> {
    let magic = rustix::fs::statfs(directory)?.f_type;
    Ok(match magic {
        0xef53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x2fc1_2fc1 => "zfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x0102_1994 => "tmpfs".into(),
        other => format!("{other:#x}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn the_floor_is_measured_and_leaves_nothing_behind() {
        let directory = std::env::temp_dir().join(format!("compare-floor-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let floor = Floor::measure(&directory, 1875).unwrap();
        assert!(floor.sync_block_us > 0.0 && floor.confirm_us() > floor.round_trip_us);
        assert!(floor.round_trip_us >= floor.round_trip_least_us);
        fs::remove_dir(&directory).unwrap();
    }
}
