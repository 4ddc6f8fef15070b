use super::*;

fn bytes(disk: &MemoryDisk, name: &str) -> Option<Vec<u8>> {
    disk.files().into_iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes)
}

fn lost(disk: &MemoryDisk) -> MemoryDisk {
    disk.crash(Crash::PowerLoss(Unsynced::Lost))
}

/// A disk with the file `a`, 8 bytes, of which "ab" is synced.
fn begun() -> (MemoryDisk, Arc<dyn DiskFile>) {
    let disk = MemoryDisk::new();
    let file = disk.create("a", 8).unwrap();
    file.write_at(0, b"ab").unwrap();
    file.sync().unwrap();
    disk.sync_names().unwrap();
    (disk, file)
}

#[test]
fn a_killed_process_loses_nothing_but_a_power_failure_takes_what_was_not_synced() {
    let (disk, file) = begun();
    file.write_at(2, b"cd").unwrap();
    disk.rename("a", "b").unwrap();
    let killed = disk.crash(Crash::Kill);
    assert_eq!(killed.files(), [("b".to_owned(), b"abcd\0\0\0\0".to_vec())]);
    for disk in [&disk, &killed] {
        assert_eq!(lost(disk).files(), [("a".to_owned(), b"ab\0\0\0\0\0\0".to_vec())]);
        let names = disk.crash(Crash::PowerLoss(Unsynced::Names));
        assert_eq!(names.files(), [("b".to_owned(), b"ab\0\0\0\0\0\0".to_vec())]);
        let writes = disk.crash(Crash::PowerLoss(Unsynced::Writes));
        assert_eq!(writes.files(), [("a".to_owned(), b"abcd\0\0\0\0".to_vec())]);
        assert_eq!(disk.crash(Crash::PowerLoss(Unsynced::Kept)).files(), killed.files());
    }
    disk.sync_names().unwrap();
    file.sync().unwrap();
    assert_eq!(lost(&disk).files(), killed.files());
}

#[test]
fn a_power_failure_tears_writes_and_leaves_any_first_part_of_the_names() {
    let (disk, file) = begun();
    file.write_at(0, &[1; 2048]).unwrap();
    for name in ["b", "c"] {
        disk.create(name, 1).unwrap();
    }
    disk.remove("a").unwrap();
    let mut names = std::collections::BTreeSet::new();
    let (mut torn, mut holes) = (false, false);
    for seed in 0..200 {
        let after = disk.crash(Crash::PowerLoss(Unsynced::Random(seed)));
        names.insert(after.state().image.names());
        if let Some(bytes) = bytes(&after, "a") {
            let written = bytes.iter().filter(|byte| **byte == 1).count();
            torn |= written % 512 != 0;
            holes |= bytes.windows(2).any(|pair| pair == [0, 1]);
        }
    }
    let expected: [&[&str]; 4] = [&["a"], &["a", "b"], &["a", "b", "c"], &["b", "c"]];
    assert!(names.iter().map(Vec::as_slice).eq(expected), "{names:?}");
    assert!(torn && holes);
}

#[test]
fn the_call_a_process_stops_at_is_its_last() {
    for (stop, live) in [(Stop::Before, b"ab__"), (Stop::Torn(1), b"abc_"), (Stop::After, b"abcd")] {
        let (disk, file) = begun();
        disk.stop_at(4, stop);
        assert!(!disk.is_stopped());
        assert_eq!(disk.calls().len(), 4);
        assert!(file.write_at(2, b"cd").is_err());
        assert!(disk.is_stopped());
        assert!(file.write_at(4, b"ef").is_err() && disk.rename("a", "b").is_err() && disk.list().is_err());
        let found = bytes(&disk.crash(Crash::Kill), "a").unwrap();
        assert_eq!(found[..4], live.map(|byte| if byte == b'_' { 0 } else { byte }), "{stop:?}");
    }
}

#[test]
fn the_write_a_process_stopped_before_can_be_torn_anywhere() {
    let (disk, file) = begun();
    disk.stop_at(4, Stop::Before);
    assert!(disk.crash_torn(0, Crash::Kill).is_none());
    assert!(file.write_at(2, b"cd").is_err());
    let torn = |len| disk.crash_torn(len, Crash::Kill).map(|disk| bytes(&disk, "a").unwrap());
    assert_eq!(torn(0).unwrap(), b"ab\0\0\0\0\0\0");
    assert_eq!(torn(1).unwrap(), b"abc\0\0\0\0\0");
    assert_eq!(torn(2).unwrap(), b"abcd\0\0\0\0");
    assert_eq!(torn(3), None);
    assert_eq!(disk.crash(Crash::Kill).fingerprint(), disk.crash_torn(0, Crash::Kill).unwrap().fingerprint());
}

#[test]
fn disks_on_which_something_else_may_be_found_have_another_fingerprint() {
    let (disk, file) = begun();
    let before = disk.crash(Crash::Kill).fingerprint();
    assert_eq!(before, lost(&disk).fingerprint());
    file.write_at(2, b"cd").unwrap();
    let written = disk.crash(Crash::Kill).fingerprint();
    file.sync().unwrap();
    let synced = disk.crash(Crash::Kill).fingerprint();
    disk.rename("a", "b").unwrap();
    let renamed = disk.crash(Crash::Kill).fingerprint();
    let all = std::collections::BTreeSet::from([before, written, synced, renamed]);
    assert_eq!(all.len(), 4, "unsynced changes count, too");
}

#[test]
fn a_creation_is_torn_too() {
    let disk = MemoryDisk::new();
    disk.stop_at(0, Stop::Torn(5));
    assert!(disk.create("a", 8).is_err());
    assert_eq!(bytes(&disk.crash(Crash::Kill), "a").unwrap().len(), 5);
    assert_eq!(bytes(&disk.crash(Crash::PowerLoss(Unsynced::Names)), "a").unwrap().len(), 0);
    assert_eq!(bytes(&lost(&disk), "a"), None);
}

#[test]
fn a_call_fails_once_or_its_kind_for_ever_or_everything() {
    for (times, sync, again) in
        [(Times::Once, true, true), (Times::EverAfter, true, false), (Times::Everything, false, false)]
    {
        let (disk, file) = begun();
        disk.fail_at(4, ErrorKind::StorageFull, times);
        let error = file.write_at(2, b"cd").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(file.sync().is_ok(), sync, "{times:?}");
        assert_eq!(file.write_at(4, b"e").is_ok(), again, "{times:?}");
        disk.work_again();
        file.write_at(4, b"e").unwrap();
        assert_eq!(bytes(&disk, "a").unwrap(), b"abc\0e\0\0\0", "half of the write that failed is done");
    }
}

#[test]
fn what_a_failed_sync_left_never_undoes_what_was_synced_later() {
    let (disk, file) = begun();
    disk.fail_at(disk.calls().len() as u64 + 1, ErrorKind::Other, Times::Once);
    file.write_at(2, b"cdef").unwrap();
    assert!(file.sync().is_err());
    file.write_at(3, b"xy").unwrap();
    file.sync().unwrap();
    for seed in 0..100 {
        let after = disk.crash(Crash::PowerLoss(Unsynced::Random(seed)));
        let bytes = bytes(&after, "a").unwrap();
        assert_eq!(&bytes[3..5], b"xy", "seed {seed}");
        assert!([b'c', 0].contains(&bytes[2]) && [b'f', 0].contains(&bytes[5]), "seed {seed}: {bytes:?}");
    }
}

#[test]
fn what_a_failed_sync_left_no_later_sync_brings_to_the_disk() {
    let (disk, file) = begun();
    file.write_at(2, b"cd").unwrap();
    disk.fail_at(disk.calls().len() as u64, ErrorKind::Other, Times::Once);
    assert!(file.sync().is_err());
    file.write_at(4, b"ef").unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&disk, "a").unwrap(), b"abcdef\0\0", "the process sees it");
    assert_eq!(bytes(&lost(&disk), "a").unwrap(), b"ab\0\0ef\0\0");
}

#[test]
fn a_full_disk_takes_what_it_has_room_for() {
    let (disk, file) = begun();
    disk.set_capacity(Some(12));
    assert_eq!(disk.create("b", 5).err().unwrap().kind(), ErrorKind::StorageFull);
    disk.create("b", 4).unwrap();
    file.write_at(0, b"12345678").unwrap();
    assert_eq!(file.write_at(8, b"9").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.keep_aside("cut", b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove("a").unwrap();
    assert_eq!(disk.used(), 12, "its bytes are there until it is closed");
    drop(file);
    assert_eq!(disk.used(), 4);
    disk.create("c", 8).unwrap();
}

#[test]
fn a_removed_file_is_back_if_its_removal_was_not_synced() {
    let (disk, file) = begun();
    disk.remove("a").unwrap();
    drop(file);
    assert_eq!(disk.used(), 0);
    assert!(bytes(&lost(&disk), "a").is_some());
    disk.sync_names().unwrap();
    assert!(bytes(&lost(&disk), "a").is_none());
}

#[test]
fn damage_is_on_the_disk_and_in_memory() {
    let (disk, file) = begun();
    assert!(disk.flip("a", 9));
    assert!(!disk.flip("a", 64));
    assert_eq!(bytes(&lost(&disk), "a").unwrap()[..2], [b'a', b'b' ^ 2]);
    disk.set_len("a", 3);
    assert_eq!(file.len().unwrap(), 3);
    disk.report_len("a", 9);
    assert_eq!(file.len().unwrap(), 9);
    assert_eq!(file.read_at(0, &mut [0; 9]).unwrap(), 3);
}

#[test]
fn what_is_kept_aside_is_durable_and_no_file() {
    let (disk, _) = begun();
    assert!(disk.keep_aside("cut", b"first").unwrap());
    assert!(!disk.keep_aside("cut", b"second").unwrap());
    assert_eq!(lost(&disk).aside(), [("cut".to_owned(), b"first".to_vec())]);
    assert_eq!(disk.list().unwrap(), ["a"]);
}

#[test]
fn what_was_given_up_does_not_come_back_over_what_was_synced_later() {
    let (disk, file) = begun();
    file.write_at(2, b"old!").unwrap();
    disk.fail_at(disk.calls().len() as u64, ErrorKind::Other, Times::Once);
    assert!(file.sync().is_err());
    file.write_at(3, b"++").unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&lost(&disk), "a").unwrap(), b"ab\0++\0\0\0");
    assert_eq!(bytes(&disk.crash(Crash::PowerLoss(Unsynced::Kept)), "a").unwrap(), b"abo++!\0\0");
}
