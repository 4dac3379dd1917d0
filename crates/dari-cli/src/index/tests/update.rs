//! What an update embeds, and what it does not.

use super::*;
use std::sync::atomic::Ordering;

#[test]
fn a_second_update_embeds_nothing_and_reads_nothing() {
    let room = Room::new();
    for number in 0..10 {
        room.put(&format!("{number}.png"), &format!("{number}"));
    }
    let (report, embedded) = room.update();
    assert_eq!((report.seen, report.embedded, embedded.len()), (10, 10, 10));
    // Equal size and time: the content is not looked at.
    let path = room.path("3.png");
    let time = path.metadata().unwrap().modified().unwrap();
    std::fs::write(&path, "X").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let (report, embedded) = room.update();
    assert_eq!((report.seen, report.unchanged, report.embedded), (10, 10, 0));
    assert!(embedded.is_empty());
    assert!(!report.stopped && report.failed.is_empty() && report.rebuilt.is_none());
    assert_eq!(report.folder, room.pictures);
}

#[test]
fn nothing_is_written_among_the_pictures() {
    let room = Room::new();
    room.put("a.png", "a");
    room.update();
    assert_eq!(std::fs::read_dir(&room.pictures).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = room.data.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn touched_edited_renamed_copied_and_deleted_pictures() {
    let room = Room::new();
    for name in ["touch", "edit", "rename", "copy", "delete", "same size"] {
        room.put(&format!("{name}.png"), name);
    }
    assert_eq!(room.update().0.embedded, 6);
    room.put_aged("touch.png", "touch", 500);
    room.put("edit.png", "edited");
    room.put_aged("same size.png", "SAME SIZE", 400);
    std::fs::create_dir(room.path("sub")).unwrap();
    std::fs::rename(room.path("rename.png"), room.path("sub/renamed.png")).unwrap();
    std::fs::copy(room.path("copy.png"), room.path("copied.png")).unwrap();
    std::fs::remove_file(room.path("delete.png")).unwrap();
    let (report, embedded) = room.update();
    assert_eq!(embedded, [room.path("edit.png"), room.path("same size.png")]);
    assert_eq!((report.seen, report.embedded), (6, 2));
    assert_eq!((report.unchanged, report.moved), (2, 1));
    assert_eq!((report.copied, report.removed), (1, 1));
    let store = room.open();
    assert_eq!(room.check(&store), 6);
    assert_eq!(room.find(&store, "rename"), [room.path("sub/renamed.png")]);
    let both = [room.path("copied.png"), room.path("copy.png")];
    assert_eq!(room.find(&store, "copy"), both);
    assert_eq!(room.find(&store, "edited"), [room.path("edit.png")]);
    for gone in ["edit", "delete", "same size"] {
        assert!(room.find(&store, gone).is_empty(), "{gone}");
    }
    // All times are settled now, except the copy's.
    let (report, embedded) = room.update();
    assert_eq!((report.unchanged, embedded.len()), (6, 0));
}

#[test]
fn a_change_within_the_clock_s_step_is_seen() {
    let room = Room::new();
    let path = room.put_aged("a.png", "one", 0);
    let time = path.metadata().unwrap().modified().unwrap();
    room.update();
    std::fs::write(&path, "two").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(room.update().0.embedded, 1);
    let store = room.open();
    assert_eq!(room.find(&store, "two"), [path]);
}

#[test]
fn what_comes_back_is_not_embedded_again_until_its_slot_is_needed() {
    let room = Room::new();
    for number in 0..8 {
        room.put(&format!("{number}.png"), &format!("{number}"));
    }
    room.update();
    for number in 0..8 {
        std::fs::remove_file(room.path(&format!("{number}.png"))).unwrap();
    }
    let (report, _) = room.update();
    assert_eq!((report.seen, report.removed), (0, 8), "an unmounted disk, say");
    for number in 0..8 {
        room.put(&format!("back {number}.png"), &format!("{number}"));
    }
    let (report, embedded) = room.update();
    assert_eq!((report.copied, embedded.len()), (8, 0));
    // With no spare allowed, freed slots are used before the file grows.
    let mut store = room.open();
    store.spare = 0;
    for number in 1..8 {
        std::fs::remove_file(room.path(&format!("back {number}.png"))).unwrap();
    }
    room.update_with(&mut store, 4);
    let size = store.vectors_path().metadata().unwrap().len();
    for number in 0..7 {
        room.put(&format!("new {number}.png"), &format!("new {number}"));
    }
    let (report, _) = room.update_with(&mut store, 3);
    assert_eq!(report.embedded, 7);
    assert_eq!(store.vectors_path().metadata().unwrap().len(), size);
    assert_eq!(room.check(&store), 8);
}

#[test]
fn models_do_not_mix() {
    let room = Room::new();
    room.put("a.png", "a");
    room.update();
    let mut other = room.open_as("model int8");
    assert!(other.search(&vector(b"a"), None, 9).unwrap().is_empty());
    assert_eq!(other.count(None).unwrap(), 0);
    let (report, _) = room.update_with(&mut other, 4);
    assert_eq!((report.embedded, report.copied), (1, 0));
    let mut narrow = Store::open_at(&room.data, "model", 2).unwrap();
    assert!(narrow.search(&[1.0, 0.0], None, 9).unwrap().is_empty());
    narrow
        .update(
            &room.pictures,
            &mut |paths: &[PathBuf]| paths.iter().map(|_| Ok(vec![3.0, 4.0])).collect(),
            4,
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
    let hits = narrow.search(&[6.0, 8.0], None, 9).unwrap();
    assert!((hits[0].score - 1.0).abs() < 1e-6, "lengths do not count");
    std::fs::remove_file(room.path("a.png")).unwrap();
    room.update_with(&mut other, 4);
    assert_eq!(other.count(None).unwrap(), 0);
    assert_eq!(room.open().count(None).unwrap(), 1, "not updated yet");
}

#[test]
fn failures_are_told_each_time_but_tried_once() {
    let room = Room::new();
    room.put("good.png", "good");
    room.put("bad.png", "bad 1");
    room.put("bad too.png", "bad 2");
    let failure = |name: &str| (room.path(name), "it is bad".to_owned());
    let failures = [failure("bad too.png"), failure("bad.png")];
    let (report, embedded) = room.update();
    assert_eq!((report.embedded, embedded.len()), (1, 3));
    assert_eq!(report.failed, failures);
    let (report, embedded) = room.update();
    assert!(embedded.is_empty());
    assert_eq!((report.seen, report.unchanged), (3, 1));
    assert_eq!(report.failed, failures);
    // Once changed, it is tried again; so is a picture that is merely touched.
    room.put_aged("bad.png", "mended", 10);
    room.put_aged("bad too.png", "bad 2", 10);
    let (report, embedded) = room.update();
    assert_eq!(embedded, [room.path("bad too.png"), room.path("bad.png")]);
    assert_eq!((report.embedded, report.failed), (1, vec![failure("bad too.png")]));
    // A good picture that goes bad is not found any more.
    room.put_aged("good.png", "bad now", 5);
    room.update();
    let store = room.open();
    assert!(room.find(&store, "good").is_empty());
    assert_eq!(room.find(&store, "mended"), [room.path("bad.png")]);
    // A later version of dari tries again.
    let model = store.database.read().unwrap().model("model", DIM as u32).unwrap().unwrap();
    assert_eq!(model.id, 1);
    let connection = rusqlite::Connection::open(room.data.join(DATABASE)).unwrap();
    connection.execute("UPDATE pictures SET program = '0.0.0-before'", []).unwrap();
    assert_eq!(room.update().1.len(), 2);
}

#[test]
fn vectors_that_are_none_are_failures() {
    let room = Room::new();
    room.put("a.png", "a");
    room.put("b.png", "b");
    let mut store = room.open();
    let mut run = |answer: &dyn Fn(usize) -> Vec<Result<Vec<f32>, String>>| {
        store.update(
            &room.pictures,
            &mut |paths: &[PathBuf]| answer(paths.len()),
            4,
            &mut |_| {},
            &AtomicBool::new(false),
        )
    };
    assert!(matches!(run(&|_| Vec::new()), Err(Error::Embedding { .. })));
    let short = run(&|count| vec![Ok(vec![1.0; DIM - 1]); count]);
    assert!(matches!(short, Err(Error::Embedding { .. })));
    let report = run(&|_| vec![Ok(vec![f32::NAN; DIM]), Ok(vec![0.0; DIM])]).unwrap();
    assert_eq!((report.failed.len(), report.embedded), (2, 0));
    assert_eq!(store.count(None).unwrap(), 0);
}

#[test]
fn a_stop_keeps_the_batch_and_goes_on_later() {
    let room = Room::new();
    for number in 0..10 {
        room.put(&format!("{number}.png"), &format!("{number}"));
    }
    let stop = AtomicBool::new(false);
    let mut steps = Vec::new();
    let mut store = room.open();
    let report = store
        .update(
            &room.pictures,
            &mut |paths: &[PathBuf]| {
                stop.store(true, Ordering::Relaxed);
                let mut answers: Vec<_> = paths.iter().map(|path| embed_one(path)).collect();
                *answers.last_mut().unwrap() = Err("interrupted".to_owned());
                answers
            },
            4,
            &mut |step| steps.push(step),
            &stop,
        )
        .unwrap();
    assert!(report.stopped && report.failed.is_empty());
    assert_eq!(report.embedded, 3);
    assert_eq!(room.check(&store), 3);
    assert!(steps.contains(&Progress::Looking { found: 10 }));
    let (report, embedded) = room.update();
    assert!(!report.stopped);
    assert_eq!((report.unchanged, embedded.len()), (3, 7));
    let report = store
        .update(&room.pictures, &mut |_| unreachable!(), 4, &mut |_| {}, &AtomicBool::new(true))
        .unwrap();
    assert!(report.stopped);
    assert_eq!(room.check(&store), 10, "a walk cut short removes nothing");
}

#[test]
fn pictures_that_change_or_vanish_meanwhile() {
    let room = Room::new();
    for name in ["a", "b", "c", "d"] {
        room.put(&format!("{name}.png"), name);
    }
    room.put("copy of b.png", "b");
    let mut store = room.open();
    let mut first = true;
    let report = store
        .update(
            &room.pictures,
            &mut |paths: &[PathBuf]| {
                if mem_take(&mut first) {
                    std::fs::remove_file(room.path("a.png")).unwrap();
                    room.put_aged("b.png", "b changed", 1);
                    room.put_aged("c.png", "c changed", 1);
                }
                paths.iter().map(|path| embed_one(path)).collect()
            },
            8,
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
    let failed: Vec<&PathBuf> = report.failed.iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [&room.path("b.png"), &room.path("c.png")]);
    assert!(report.failed[0].1.contains("changed while"));
    // d, and the copy of what b was, which is embedded on its own.
    assert_eq!(room.check(&store), 2);
    assert_eq!(room.find(&store, "b"), [room.path("copy of b.png")]);
    room.update();
    assert_eq!(room.check(&store), 4);
}

fn mem_take(flag: &mut bool) -> bool {
    std::mem::replace(flag, false)
}

#[test]
fn folders_that_are_none_or_empty() {
    let room = Room::new();
    let (report, _) = room.update();
    assert_eq!((report.seen, report.embedded), (0, 0));
    let file = room.put("a.png", "a");
    let mut store = room.open();
    for folder in [&room.path("none"), &file] {
        let error = store
            .update(folder, &mut |_| unreachable!(), 4, &mut |_| {}, &AtomicBool::new(false))
            .unwrap_err();
        assert!(matches!(error, Error::Folder { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn names_that_are_not_unicode_links_and_pipes() {
    use std::os::unix::ffi::OsStrExt;
    let room = Room::new();
    let odd = room.pictures.join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n'%.JPG"));
    std::fs::write(&odd, "odd").unwrap();
    std::os::unix::fs::symlink(&room.pictures, room.path("loop")).unwrap();
    std::os::unix::fs::symlink("self.png", room.path("self.png")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(room.path("socket.png")).unwrap();
    let (report, _) = room.update();
    assert_eq!((report.seen, report.embedded, report.failed.len()), (1, 1, 2));
    let store = room.open();
    assert_eq!(room.find(&store, "odd"), [odd]);
    // The folder may be named by a link, too.
    let hits = store.search(&vector(b"odd"), Some(&room.path("loop")), 3).unwrap();
    assert_eq!(hits.len(), 1);
}

#[cfg(unix)]
#[test]
fn an_unreadable_folder_is_told_and_nothing_below_it_forgotten() {
    use std::os::unix::fs::PermissionsExt;
    let room = Room::new();
    room.put("a.png", "a");
    room.put("closed/b.png", "b");
    room.update();
    let closed = room.path("closed");
    let set = |mode| {
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o000);
    // Nothing is closed to root.
    let root = std::fs::read_dir(&closed).is_ok();
    let (report, _) = room.update();
    set(0o700);
    if !root {
        assert_eq!(report.failed.len(), 1);
        assert_eq!(report.failed[0].0, closed);
    }
    assert_eq!(report.removed, 0);
    assert_eq!(room.open().count(None).unwrap(), 2);
}

#[test]
fn ten_thousand_pictures() {
    let room = Room::new();
    for number in 0..10_000 {
        let path = room.path(&format!("{number}.webp"));
        std::fs::write(path, format!("{number}")).unwrap();
    }
    let mut store = room.open();
    let (report, _) = room.update_with(&mut store, 1000);
    assert_eq!((report.seen, report.embedded), (10_000, 10_000));
    assert_eq!(room.check(&store), 10_000);
    let (report, embedded) = room.update_with(&mut store, 1000);
    assert_eq!((report.unchanged, embedded.len()), (10_000, 0));
    assert_eq!(room.find(&store, "7777"), [room.path("7777.webp")]);
}
