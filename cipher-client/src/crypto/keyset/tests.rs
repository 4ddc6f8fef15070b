use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn key() -> PrivateKey {
    PrivateKey::generate_kind(KeyKind::X25519).unwrap()
}

fn day(n: u32) -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY + n * DAY
}

fn kids(keyset: &Keyset) -> Vec<Kid> {
    keyset.keys().map(|key| *key.kid()).collect()
}

/// A directory with a key of each of the days 0 to `rotations`, and their ids, the newest first.
fn rotated(rotations: u32) -> (TempDir, Keyset, Vec<Kid>) {
    let dir = tempfile::tempdir().unwrap();
    let first = key();
    let mut expected = vec![*first.kid()];
    let mut keyset = Keyset::create_at(dir.path(), first, None, day(0)).unwrap();
    for n in 1..=rotations {
        let next = key();
        expected.insert(0, *next.kid());
        keyset.rotate_at(next, day(n)).unwrap();
    }
    (dir, keyset, expected)
}

fn private_files(dir: &TempDir) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("key-") && !name.ends_with(".public.pem")).count()
}

fn reason(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::File { reason, .. } | ErrorKind::Option { reason, .. } | ErrorKind::Key { reason } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_rotation_keeps_the_old_keys_and_survives_a_reopen() {
    let (dir, keyset, expected) = rotated(3);
    for keyset in [&keyset, &Keyset::open(dir.path()).unwrap()] {
        assert_eq!(kids(keyset), expected);
        assert_eq!(keyset.primary().kid(), &expected[0]);
        assert_eq!(keyset.retired(&expected[0]), None);
        assert_eq!(keyset.retired(&expected[1]), Some(day(3)));
        assert_eq!(keyset.retired(&expected[3]), Some(day(1)));
        assert_eq!(keyset.get(&expected[2]).unwrap().kid(), &expected[2]);
        assert!(keyset.get(key().kid()).is_none());
    }
    let listed = Keyset::list(dir.path()).unwrap();
    assert_eq!(listed.iter().map(|entry| entry.kid).collect::<Vec<_>>(), expected);
    assert_eq!((listed[1].since, listed[1].retired, listed[1].kind), (day(2), Some(day(3)), KeyKind::X25519));
    let public = crate::crypto::PublicKey::from_file(&listed[0].public).unwrap();
    assert_eq!(public.kid(), &expected[0]);
}

#[test]
fn old_keys_are_deleted_when_their_retention_is_over() {
    let (dir, mut keyset, ids) = rotated(3);
    assert_eq!(keyset.prune_at(day(4), 30 * DAY).unwrap(), []);
    assert_eq!(keyset.prune_at(day(31), 30 * DAY).unwrap(), [ids[3]], "retired on day 1");
    assert_eq!(private_files(&dir), 3);
    assert_eq!(kids(&Keyset::open(dir.path()).unwrap()), ids[..3]);
    assert_eq!(keyset.prune_at(day(99), Duration::ZERO).unwrap(), ids[1..3]);
    assert_eq!(kids(&Keyset::open(dir.path()).unwrap()), ids[..1], "the primary stays");
    assert_eq!(private_files(&dir), 1);
}

#[test]
fn a_clock_set_back_deletes_nothing() {
    let (_dir, mut keyset, ids) = rotated(2);
    assert_eq!(keyset.prune_at(day(0), Duration::ZERO).unwrap(), []);
    assert_eq!(kids(&keyset), ids);
}

#[test]
fn there_is_room_for_sixteen_keys() {
    let (dir, mut keyset, _) = rotated(KEYSET_KEYS_MAX as u32 - 1);
    assert_eq!(reason(&keyset.rotate_at(key(), day(20)).unwrap_err()), "at most 16: prune the keyset first");
    assert_eq!(Keyset::open(dir.path()).unwrap().keys().count(), KEYSET_KEYS_MAX);
    keyset.prune_at(day(20), 19 * DAY).unwrap();
    keyset.rotate_at(key(), day(21)).unwrap();
    assert_eq!(keyset.keys().count(), KEYSET_KEYS_MAX);
}

#[test]
fn a_key_is_in_a_keyset_once() {
    let key = key();
    let copy = || PrivateKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
    let mut keyset = Keyset::new(copy());
    assert!(reason(&keyset.rotate(copy()).unwrap_err()).contains("is in the keyset"));
    assert!(Keyset::new(copy()).with_retired(copy()).is_err());
}

#[test]
fn keys_of_all_kinds_live_side_by_side_in_memory() {
    let kinds = [KeyKind::Rsa, KeyKind::X25519, KeyKind::XWing];
    let [rsa, x25519, xwing] = kinds.map(|kind| PrivateKey::generate_kind(kind).unwrap());
    let keyset = Keyset::from(xwing).with_retired(x25519).and_then(|keyset| keyset.with_retired(rsa)).unwrap();
    assert_eq!(keyset.primary().kind(), KeyKind::XWing);
    let ids: std::collections::HashSet<Kid> = keyset.keys().map(|key| *key.kid()).collect();
    assert_eq!(ids.len(), 3);
}

#[cfg(unix)]
#[test]
fn the_directory_is_the_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("keys");
    Keyset::create_at(&dir, key(), None, day(0)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let listed = Keyset::list(&dir).unwrap();
    assert_eq!(mode(&listed[0].private), 0o600);
    assert_eq!(mode(&dir.join("keyset")), 0o600);
    let strict = || Keyset::open_with(&dir, KeyFileOptions::default().strict());
    strict().unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(reason(&strict().err().unwrap()).contains("chmod 700"));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&listed[0].private, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(reason(&strict().err().unwrap()).contains("chmod 600"));
    Keyset::open(&dir).unwrap();
    let shared = outer.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(shared.join("notes"), "").unwrap();
    let refused = Keyset::create_at(&shared, key(), None, day(0)).err().unwrap();
    assert!(reason(&refused).contains("chmod 700"));
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 1, "nothing was written");
    fs::remove_file(shared.join("notes")).unwrap();
    Keyset::create_at(&shared, key(), None, day(0)).unwrap();
    assert_eq!(mode(&shared), 0o700, "an empty one");
}

#[test]
fn keys_under_a_passphrase_stay_under_it() {
    let passphrase = || Passphrase::new("correct horse").unwrap();
    let dir = tempfile::tempdir().unwrap();
    Keyset::create_at(dir.path(), key(), Some(passphrase()), day(0)).unwrap();
    let with = |passphrase| Keyset::open_with(dir.path(), KeyFileOptions::default().with_passphrase(passphrase));
    let mut keyset = with(passphrase()).unwrap();
    keyset.rotate_at(key(), day(1)).unwrap();
    for entry in Keyset::list(dir.path()).unwrap() {
        assert!(fs::read_to_string(entry.private).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    }
    assert_eq!(kids(&with(passphrase()).unwrap()), kids(&keyset));
    assert_eq!(*with(Passphrase::new("wrong").unwrap()).err().unwrap().kind(), ErrorKind::PassphraseWrong);
    assert_eq!(*Keyset::open(dir.path()).err().unwrap().kind(), ErrorKind::PassphraseNeeded);
}

#[test]
fn two_programs_do_not_change_a_keyset_over_each_other() {
    let (dir, mut first, _) = rotated(0);
    let mut second = Keyset::open(dir.path()).unwrap();
    first.rotate_at(key(), day(1)).unwrap();
    assert!(reason(&second.rotate_at(key(), day(1)).unwrap_err()).contains("changed by another program"));
    let held = fs::File::open(dir.path().join("lock")).unwrap();
    held.lock().unwrap();
    assert!(reason(&first.rotate_at(key(), day(2)).unwrap_err()).contains("another program is changing it"));
    drop(held);
    first.rotate_at(key(), day(2)).unwrap();
    assert_eq!(private_files(&dir), 3, "what was refused left nothing");
}

/// A crash before the manifest is replaced.
#[test]
fn a_keyset_follows_what_another_program_changed() {
    let (dir, mut first, _) = rotated(0);
    let mut second = Keyset::open(dir.path()).unwrap();
    assert!(!second.reload().unwrap(), "nothing has changed");
    first.rotate_at(key(), day(1)).unwrap();
    assert!(second.reload().unwrap());
    assert_eq!(kids(&second), kids(&first));
    first.prune_at(day(9), Duration::ZERO).unwrap();
    let gone = Keyset::list(dir.path()).unwrap().swap_remove(0).private;
    let kept = fs::read(&gone).unwrap();
    fs::remove_file(&gone).unwrap();
    assert!(matches!(second.reload().unwrap_err().kind(), ErrorKind::Io { .. }));
    assert_eq!(second.keys().count(), 2, "as it was");
    fs::write(&gone, kept).unwrap();
    assert!(second.reload().unwrap(), "and it is tried again");
    assert_eq!(kids(&second), kids(&first));
    second.rotate_at(key(), day(10)).unwrap();
    assert!(!Keyset::new(key()).reload().unwrap(), "in memory nobody else changes it");
}

#[test]
fn a_rotation_that_a_crash_cut_short_did_not_happen() {
    let (dir, keyset, ids) = rotated(1);
    let lost = key();
    fs::write(home::private_path(dir.path(), lost.kid()), lost.to_pem().unwrap().as_bytes()).unwrap();
    fs::write(dir.path().join("keyset.new"), "ciphermq key").unwrap();
    drop(keyset);
    let mut keyset = Keyset::open(dir.path()).unwrap();
    assert_eq!(kids(&keyset), ids);
    keyset.rotate_at(key(), day(2)).unwrap();
    assert_eq!(Keyset::open(dir.path()).unwrap().keys().count(), 3);
}

/// A crash between giving a key up and removing its file.
#[test]
fn a_deletion_that_a_crash_cut_short_is_carried_on() {
    let (dir, _, ids) = rotated(2);
    let path = Manifest::path(dir.path());
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().nth(3).unwrap();
    fs::write(&path, text.replace(line, &line.replace("retired", "deleted"))).unwrap();
    let mut keyset = Keyset::open(dir.path()).unwrap();
    assert_eq!(kids(&keyset), ids[..2], "not used again");
    assert_eq!(private_files(&dir), 3);
    assert_eq!(keyset.prune_at(day(9), 30 * DAY).unwrap(), []);
    assert_eq!(private_files(&dir), 2);
    assert_eq!(kids(&Keyset::open(dir.path()).unwrap()), ids[..2]);
}

#[test]
fn a_manifest_that_cannot_be_replaced_leaves_no_key_behind() {
    let (dir, mut keyset, ids) = rotated(1);
    fs::create_dir(dir.path().join("keyset.new")).unwrap();
    assert!(matches!(keyset.rotate_at(key(), day(2)).unwrap_err().kind(), ErrorKind::Io { .. }));
    assert_eq!(kids(&keyset), ids);
    assert_eq!(private_files(&dir), 2);
    fs::remove_dir(dir.path().join("keyset.new")).unwrap();
    keyset.rotate_at(key(), day(2)).unwrap();
}

#[test]
fn a_file_with_another_key_is_not_taken() {
    let (dir, _, ids) = rotated(1);
    fs::copy(home::private_path(dir.path(), &ids[0]), home::private_path(dir.path(), &ids[1])).unwrap();
    let error = Keyset::open(dir.path()).err().unwrap();
    assert!(reason(&error).contains("another key"), "{error}");
    fs::write(home::private_path(dir.path(), &ids[1]), "no key").unwrap();
    let error = Keyset::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains(&ids[1].to_string()["sha256:".len()..]), "{error}");
    fs::remove_file(home::private_path(dir.path(), &ids[1])).unwrap();
    assert!(matches!(Keyset::open(dir.path()).err().unwrap().kind(), ErrorKind::Io { .. }));
}

#[test]
fn what_is_no_keyset_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = || Keyset::open(dir.path()).err().unwrap().to_string();
    assert!(refusal().contains("holds no keyset"));
    assert!(!Keyset::is_at(dir.path()));
    let (good_dir, _, _) = rotated(1);
    assert!(reason(&Keyset::create(good_dir.path(), key(), None).err().unwrap()).contains("already"));
    let good = fs::read_to_string(Manifest::path(good_dir.path())).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let (primary, retired) = (lines[1], lines[2]);
    let header = "ciphermq keyset 1";
    let bad = [
        String::new(),
        "hello\n".into(),
        good.replace("keyset 1", "keyset 2"),
        format!("{header}\n"),
        format!("{header}\n{retired}\n"),
        format!("{header}\n{retired}\n{primary}\n"),
        format!("{header}\n{primary}\n{}\n", retired.replace("retired", "primary")),
        format!("{header}\n{primary}\n{retired}\n{retired}\n"),
        format!("{header}\n{primary} 7\n"),
        format!("{header}\n{primary}\n{}\n", retired.rsplit_once(' ').unwrap().0),
        format!("{header}\n{}\n", primary.replace("X25519", "Ed25519")),
        format!("{header}\n{}\n", primary.replace("sha256:", "")),
        good.trim_end().to_owned(),
        format!("{header}\n{primary}\n\n"),
    ];
    for text in bad {
        fs::write(Manifest::path(dir.path()), &text).unwrap();
        let error = Keyset::open(dir.path()).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::File { .. }), "{text:?}: {error}");
        assert_eq!(fs::read_to_string(Manifest::path(dir.path())).unwrap(), text);
    }
}
