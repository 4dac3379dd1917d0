//! Damaged, foreign and missing files, and full disks.

use super::*;
use std::fs;

fn filled() -> (Room, PathBuf) {
    let room = Room::new();
    for number in 0..9 {
        room.put(&format!("{number}.png"), &format!("{number}"));
    }
    room.update();
    let path = room.open().vectors_path();
    (room, path)
}

/// A search fails with a clear error, and an update mends all.
fn is_told_and_mended(room: &Room, embedded: usize, rebuilt: bool) {
    let store = room.open();
    let error = store.search(&vector(b"3"), None, 20).unwrap_err();
    assert!(matches!(error, Error::Vectors { .. }), "{error}");
    let (report, _) = room.update();
    assert_eq!(report.embedded, embedded);
    assert_eq!(report.rebuilt.is_some(), rebuilt);
    if !rebuilt {
        assert_eq!((report.repaired, report.unchanged), (embedded, 9 - embedded));
    }
    assert_eq!(room.check(&store), 9);
    assert_eq!(room.find(&store, "3"), [room.path("3.png")]);
    assert_eq!(room.update().0.unchanged, 9);
}

#[test]
fn a_missing_or_foreign_file_of_vectors_is_made_anew() {
    let (room, path) = filled();
    fs::remove_file(&path).unwrap();
    is_told_and_mended(&room, 9, true);
    fs::write(&path, "").unwrap();
    is_told_and_mended(&room, 9, true);
    fs::write(&path, vec![0; 5000]).unwrap();
    is_told_and_mended(&room, 9, true);
    // Another model's file, a later version's, one of another width, an older copy.
    for at in [8, 12, 16, 50] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        is_told_and_mended(&room, 9, true);
    }
}

#[test]
fn a_shortened_file_of_vectors_loses_only_its_end() {
    let (room, path) = filled();
    let stride = DIM * 4;
    for (length, lost) in [(64 + 5 * stride, 4), (64 + 5 * stride + 3, 4), (64, 9)] {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(length as u64).unwrap();
        is_told_and_mended(&room, lost, false);
    }
}

#[test]
fn damaged_vectors_are_found_by_their_sums() {
    let (room, path) = filled();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[64] ^= 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    is_told_and_mended(&room, 2, false);
    // Zeros, as a file system may leave after a power cut.
    let mut bytes = fs::read(&path).unwrap();
    bytes[64..].fill(0);
    fs::write(&path, bytes).unwrap();
    is_told_and_mended(&room, 9, false);
}

#[test]
fn a_copy_of_a_picture_whose_vector_is_damaged_is_embedded() {
    let (room, path) = filled();
    let mut bytes = fs::read(&path).unwrap();
    bytes[64..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    fs::rename(room.path("4.png"), room.path("four.png")).unwrap();
    assert_eq!(room.update().0.embedded, 9);
    assert_eq!(room.check(&room.open()), 9);
}

#[test]
fn a_damaged_or_foreign_database_is_refused() {
    let (room, _) = filled();
    let path = room.data.join(DATABASE);
    let good = fs::read(&path).unwrap();
    let open = || Store::open_at(&room.data, "model", DIM);
    fs::write(&path, "this is no database at all, however long one looks at it").unwrap();
    assert!(matches!(open(), Err(Error::Database { .. })));
    fs::remove_file(&path).unwrap();
    {
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("CREATE TABLE pictures (x)").unwrap();
    }
    let error = open().unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    fs::write(&path, &good).unwrap();
    {
        let newer = rusqlite::Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
    }
    assert!(matches!(open(), Err(Error::Newer { found: 99, .. })));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(open(), Err(Error::Io { .. })));
    fs::remove_dir(&path).unwrap();
    // Deleted with the vectors left behind: all begins anew.
    assert_eq!(room.update().0.embedded, 9);
    assert_eq!(room.check(&room.open()), 9);
}

#[test]
fn no_damage_to_the_database_is_a_panic() {
    let (room, _) = filled();
    let path = room.data.join(DATABASE);
    let good = fs::read(&path).unwrap();
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for round in 0..60 {
        let mut bad = good.clone();
        if round % 3 == 0 {
            bad.truncate(next(good.len()));
        }
        for _ in 0..40 {
            let at = next(bad.len().max(1));
            if let Some(byte) = bad.get_mut(at) {
                *byte = next(256) as u8;
            }
        }
        fs::write(&path, &bad).unwrap();
        let Ok(mut store) = Store::open_at(&room.data, "model", DIM) else {
            continue;
        };
        let _ = store.count(None);
        let _ = store.search(&vector(b"3"), None, 20);
        let _ = store.update(
            &room.pictures,
            &mut |paths: &[PathBuf]| paths.iter().map(|path| embed_one(path)).collect(),
            4,
            &mut |_| {},
            &AtomicBool::new(false),
        );
    }
}

#[test]
fn slots_out_of_range_are_told() {
    let (room, _) = filled();
    for slot in [-1, 9, 1 << 40, i64::MAX] {
        let connection = rusqlite::Connection::open(room.data.join(DATABASE)).unwrap();
        connection.execute("UPDATE pictures SET slot = ?1 WHERE path LIKE '%3.png'", [slot]).unwrap();
        let error = room.open().search(&vector(b"3"), None, 20).unwrap_err();
        assert!(matches!(error, Error::Vectors { .. } | Error::Database { .. }), "{error}");
        let (report, _) = room.update();
        assert_eq!((report.unchanged, report.copied + report.embedded), (8, 1));
        assert_eq!(room.check(&room.open()), 9);
    }
}

#[test]
fn a_full_disk_is_one_line_and_costs_only_the_batch() {
    let room = Room::new();
    for number in 0..400 {
        room.put(&format!("{number}.png"), &format!("{number}"));
    }
    let mut store = room.open();
    let run = |store: &mut Store| {
        store.update(
            &room.pictures,
            &mut |paths: &[PathBuf]| paths.iter().map(|path| embed_one(path)).collect(),
            10,
            &mut |_| {},
            &AtomicBool::new(false),
        )
    };
    // First SQLite has no room left, then the file of vectors.
    store.database.forbid_growth();
    let error = run(&mut store).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    let kept = room.check(&store);
    assert!(kept < 400);
    let mut store = room.open();
    let mut left = 25;
    store.fault.hook = Some(Box::new(move |step| {
        left -= i32::from(step == Step::VectorWritten);
        if left < 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }));
    let error = run(&mut store).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
    assert_eq!(room.check(&store), kept + 20);
    store.fault.hook = None;
    let report = run(&mut store).unwrap();
    assert_eq!((report.unchanged, report.embedded), (kept + 20, 380 - kept));
    assert_eq!(room.check(&store), 400);
}
