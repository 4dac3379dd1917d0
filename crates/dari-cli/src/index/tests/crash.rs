//! An end at any moment: between any two steps, by `kill -9`, and with two processes at once.

use super::*;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "DARI_TEST_INDEX_CHILD";
const ABORT: &str = "DARI_TEST_INDEX_ABORT";

/// Not a test of its own: what the other tests start in a process that they then kill.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else {
        return;
    };
    let root = PathBuf::from(root);
    let mut store = Store::open_at(&root.join("data"), "model", DIM).unwrap();
    store.spare = 0;
    store.codes_from = 1;
    if let Ok(left) = std::env::var(ABORT) {
        let mut left: usize = left.parse().unwrap();
        store.fault.hook = Some(Box::new(move |_| {
            if left == 0 {
                std::process::abort();
            }
            left -= 1;
            Ok(())
        }));
    }
    store
        .update(
            &root.join("pictures"),
            &mut |paths: &[PathBuf]| {
                std::thread::sleep(Duration::from_millis(1));
                paths.iter().map(|path| embed_one(path)).collect()
            },
            3,
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
}

fn start(room: &Room, abort: Option<usize>) -> std::process::Child {
    let module = module_path!().split_once("::").unwrap().1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("{module}::child"), "--nocapture"])
        .env(CHILD, room.pictures.parent().unwrap())
        .env_remove(ABORT)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(steps) = abort {
        command.env(ABORT, steps.to_string());
    }
    command.spawn().unwrap()
}

/// Twelve pictures, some new, some changed, some gone since the last call.
fn stir(room: &Room, round: usize) {
    for number in 0..12 {
        let path = room.path(&format!("{number}.png"));
        match (number + round) % 4 {
            0 => {
                let _ = std::fs::remove_file(path);
            }
            1 => {}
            _ => {
                room.put_aged(&format!("{number}.png"), &format!("{number} {round}"), 100);
            }
        }
    }
}

#[test]
fn a_failure_between_any_two_steps_leaves_a_sound_index() {
    // Counts the steps of a whole update first.
    let count = |room: &Room, fail_at: Option<usize>| -> usize {
        let mut store = room.open();
        store.spare = 0;
        let steps = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = steps.clone();
        store.fault.hook = Some(Box::new(move |_| {
            let step = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if Some(step) == fail_at {
                return Err(std::io::Error::other("fault"));
            }
            Ok(())
        }));
        let result = store.update(
            &room.pictures,
            &mut |paths: &[PathBuf]| paths.iter().map(|path| embed_one(path)).collect(),
            3,
            &mut |_| {},
            &AtomicBool::new(false),
        );
        assert_eq!(result.is_err(), fail_at.is_some());
        steps.load(std::sync::atomic::Ordering::Relaxed)
    };
    let room = Room::new();
    stir(&room, 0);
    let steps = count(&room, None);
    assert!(steps > 10);
    for fail_at in 0..steps {
        let room = Room::new();
        stir(&room, 0);
        count(&room, Some(fail_at));
        room.check(&room.open());
        // The next update carries on, over pictures that have changed again.
        stir(&room, 1);
        count(&room, None);
        let store = room.open();
        let there = std::fs::read_dir(&room.pictures).unwrap().count();
        assert_eq!(room.check(&store), there);
        assert_eq!(room.update().0.unchanged, there);
    }
}

#[test]
fn an_abort_between_any_two_steps_leaves_a_sound_index() {
    let room = Room::new();
    for round in 0..16 {
        stir(&room, round);
        let status = start(&room, Some(round * 7 % 16)).wait().unwrap();
        let mut store = room.open();
        store.codes_from = 1;
        room.check(&store);
        if status.success() {
            assert!(round > 0, "the first update has more steps than it was given");
        }
    }
    room.update();
    let there = std::fs::read_dir(&room.pictures).unwrap().count();
    assert_eq!(room.check(&room.open()), there);
}

#[test]
fn a_kill_at_any_moment_leaves_a_sound_index() {
    let room = Room::new();
    let mut killed = 0;
    for round in 0..14 {
        stir(&room, round);
        for number in 0..40 {
            room.put(&format!("many {number}.png"), &format!("{number} {}", round / 3));
        }
        let mut child = start(&room, None);
        // Wait for a sign of work, so that slow machines kill in its midst as well.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(5 + 7 * round as u64) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let mut store = room.open();
        store.codes_from = 1;
        room.check(&store);
    }
    assert!(killed > 0);
    room.update();
    let there = std::fs::read_dir(&room.pictures).unwrap().count();
    assert_eq!(room.check(&room.open()), there);
}

#[test]
fn two_processes_may_index_at_once() {
    let room = Room::new();
    for number in 0..60 {
        room.put(&format!("{number}.png"), &format!("{}", number / 2));
    }
    let mut children: Vec<_> = (0..3).map(|_| start(&room, None)).collect();
    let mut store = room.open();
    room.update_with(&mut store, 2);
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(room.check(&store), 60);
    let (report, embedded) = room.update();
    assert_eq!((report.unchanged, embedded.len()), (60, 0));
    let slots = (store.vectors_path().metadata().unwrap().len() - 64) / (DIM as u64 * 4);
    assert_eq!(slots, 30, "no content has two slots");
}

#[test]
fn a_vector_that_another_process_frees_meanwhile_is_made_again() {
    let room = Room::new();
    let old = [room.put("old.png", "x"), room.put("older.png", "w")];
    room.update();
    for path in old {
        std::fs::remove_file(path).unwrap();
    }
    room.update();
    // The vectors of x and w are spare now. While y is embedded, another store frees them.
    room.put("new x.png", "x");
    room.put("y.png", "y");
    let elsewhere = Room::new();
    elsewhere.put("z.png", "z");
    let mut embedded = Vec::new();
    let report = room
        .open()
        .update(
            &room.pictures,
            &mut |paths: &[PathBuf]| {
                if embedded.is_empty() {
                    let mut other = room.open();
                    other.spare = 0;
                    elsewhere.update_with(&mut other, 4);
                    assert_eq!(room.check(&other), 1);
                }
                embedded.extend_from_slice(paths);
                paths.iter().map(|path| embed_one(path)).collect()
            },
            8,
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
    assert_eq!(embedded, [room.path("y.png"), room.path("new x.png")]);
    assert_eq!((report.embedded, report.copied), (2, 0));
    assert_eq!(room.check(&room.open()), 3);
}
