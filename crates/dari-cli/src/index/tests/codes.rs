//! Codes: a search by them is the plain search, whatever became of them.

use super::*;
use std::fs;

/// A store in which every index is large enough for codes.
fn coding(room: &Room) -> Store {
    let mut store = room.open();
    store.codes_from = 1;
    store.spare = 0;
    store
}

/// A search with codes must be the one without; tells how many slots have codes.
fn agrees(room: &Room) -> usize {
    let (mut plain, coded) = (room.open(), coding(room));
    plain.codes_from = usize::MAX;
    for query in ["query", "3", "another"] {
        let query = vector(query.as_bytes());
        for k in [1, 2, 7, 30, 5000] {
            for folder in [None, Some(room.path("")), Some(room.path("a")), Some(room.path("none"))] {
                let expected = plain.search(&query, folder.as_deref(), k).unwrap();
                assert_eq!(coded.search(&query, folder.as_deref(), k).unwrap(), expected, "{k} {folder:?}");
            }
        }
    }
    room.check(&coded);
    room.codes(&coded).len()
}

fn fill(room: &Room, count: usize, round: usize) {
    for number in 0..count {
        let folder = ["a", "b/c"][number % 2];
        // Some are copies, some stay from round to round.
        room.put(&format!("{folder}/{number}.jpg"), &format!("{} {}", number / 3, (number % 4 + round) / 4));
    }
}

fn slots(store: &Store) -> usize {
    let view = store.database.read().unwrap();
    let model = view.model(&store.fingerprint, store.dim).unwrap().unwrap();
    view.slots(model).unwrap().0
}

#[test]
fn a_search_by_codes_is_the_plain_one() {
    let room = Room::new();
    fill(&room, 200, 0);
    let mut store = coding(&room);
    room.update_with(&mut store, 16);
    assert_eq!(agrees(&room), slots(&store));
    assert!(store.codes_path().exists());
    // Equal vectors in many slots: more than any list of the nearest holds.
    for number in 0..60 {
        room.put(&format!("many/{number}.jpg"), "the same");
    }
    room.update_with(&mut store, 16);
    assert_eq!(agrees(&room), slots(&store));
}

#[test]
fn small_indexes_have_no_codes() {
    let room = Room::new();
    fill(&room, 50, 0);
    room.update();
    assert!(!room.open().codes_path().exists());
    let store = room.open();
    let view = store.database.read().unwrap();
    let model = view.model(&store.fingerprint, store.dim).unwrap().unwrap();
    assert_eq!(view.codes(model).unwrap(), None);
}

#[test]
fn codes_follow_every_change() {
    let room = Room::new();
    for round in 0..10 {
        fill(&room, 60 + 20 * round, round);
        for number in 0..20 {
            let _ = fs::remove_file(room.path(&format!("a/{}.jpg", (number * 2 + round * 14) % 100)));
        }
        let mut store = coding(&room);
        // In every other round a version writes that knows of no codes.
        if round % 2 == 1 {
            store.codes_from = usize::MAX;
        }
        room.update_with(&mut store, 7);
        let coded = agrees(&room);
        assert!(coded > 0 && (round % 2 == 1 || coded == slots(&store)), "{coded} of {}", slots(&store));
    }
}

#[test]
fn codes_in_doubt_are_made_anew_and_nothing_is_told() {
    let room = Room::new();
    fill(&room, 100, 0);
    room.update_with(&mut coding(&room), 16);
    let path = room.open().codes_path();
    let good = fs::read(&path).unwrap();
    fill(&room, 100, 1);
    room.update_with(&mut coding(&room), 16);
    let all = agrees(&room);
    let newer = fs::read(&path).unwrap();
    assert_ne!(good, newer);
    let spoilt = |at: usize| {
        let mut bytes = newer.clone();
        bytes[at] ^= 4;
        bytes
    };
    // Missing, empty, cut short, foreign, of another version, width, model, copy; an older one.
    let cut = newer[..newer.len() - 1].to_vec();
    let whole = [vec![], b"junk".to_vec(), cut, spoilt(0), spoilt(8), spoilt(12), spoilt(20), spoilt(50)];
    for bytes in whole.into_iter().map(Some).chain([None, Some(spoilt(70)), Some(good)]) {
        let _ = fs::remove_file(&path);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(agrees(&room), 0);
        let (report, _) = room.update_with(&mut coding(&room), 16);
        assert_eq!((report.unchanged, report.rebuilt), (100, None));
        assert_eq!(agrees(&room), all);
        fs::write(&path, &newer).unwrap();
        room.update_with(&mut coding(&room), 16);
    }
    // A folder in its place is beyond mending, and does no harm.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(room.update_with(&mut coding(&room), 16).0.unchanged, 100);
    assert_eq!(agrees(&room), 0);
}

#[test]
fn damaged_codes_are_found_by_the_next_update() {
    let room = Room::new();
    fill(&room, 100, 0);
    room.update_with(&mut coding(&room), 16);
    let path = room.open().codes_path();
    let good = fs::read(&path).unwrap();
    for at in [4096, 8192 + 3, 8192 + 40, good.len() - 1] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        room.update_with(&mut coding(&room), 16);
        assert_eq!(agrees(&room), slots(&room.open()), "byte {at}");
        // All but the nonce is as it was.
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[4096..] == good[4096..], "byte {at}");
    }
}

#[test]
fn an_end_before_the_commit_leaves_codes_that_are_not_used() {
    let room = Room::new();
    fill(&room, 150, 0);
    // Every step of the first making, then of a change.
    for round in 0..2 {
        fill(&room, 150, round);
        for fail_at in 0..4 {
            let mut store = coding(&room);
            let mut seals = 0;
            store.fault.hook = Some(Box::new(move |step| {
                seals += usize::from(step == Step::CodesSealed);
                if seals > fail_at {
                    return Err(std::io::Error::other("fault"));
                }
                Ok(())
            }));
            room.update_with(&mut store, 16);
            agrees(&room);
        }
        room.update_with(&mut coding(&room), 16);
        assert_eq!(agrees(&room), slots(&room.open()));
    }
}

#[test]
fn a_search_keeps_the_codes_that_it_began_with() {
    let room = Room::new();
    fill(&room, 100, 0);
    room.update_with(&mut coding(&room), 16);
    let store = coding(&room);
    let before = room.codes(&store);
    let view = store.database.read().unwrap();
    let model = view.model(&store.fingerprint, store.dim).unwrap().unwrap();
    let map = store.codes(&view, model).unwrap().unwrap();
    drop(view);
    fill(&room, 160, 2);
    room.update_with(&mut coding(&room), 16);
    fs::remove_file(store.codes_path()).unwrap();
    room.update_with(&mut coding(&room), 16);
    let seen: usize = map.pieces().iter().map(|piece| piece.codes.rows()).sum();
    assert_eq!(seen, before.len());
}
