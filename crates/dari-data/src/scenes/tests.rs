use super::compose::REACH;
use super::palette::{contrasts, distance, middle};
use super::*;
use std::collections::{BTreeMap, HashSet};

const SIDE: u32 = 96;

fn scenes(count: u64, kind: Option<Kind>) -> impl Iterator<Item = Scene> {
    let options = SceneOptions { kind, held_out: false };
    (0..count).map(move |index| Scene::draw_with(11, index, &options))
}

fn pixels(scene: &Scene) -> Vec<Rgb> {
    let picture = scene.render(SIDE);
    let triples = picture.rgb().chunks_exact(3);
    triples.map(|rgb| [rgb[0], rgb[1], rgb[2]]).collect()
}

/// The pixels that the objects changed, where the change is plain.
fn mask(scene: &Scene) -> Vec<bool> {
    let bare = Scene { objects: Vec::new(), ..scene.clone() };
    let pairs = pixels(scene).into_iter().zip(pixels(&bare));
    pairs.map(|(a, b)| distance(a, b) > 60.0).collect()
}

fn texts(scene: &Scene) -> Vec<String> {
    scene.captions().into_iter().map(|c| c.text).collect()
}

fn only(scene: &Scene, object: usize) -> Scene {
    Scene { objects: vec![scene.objects[object]], ..scene.clone() }
}

/// The middle of the box around what an object covers, as fractions of the frame.
fn box_middle(mask: &[bool]) -> (f32, f32) {
    let on = || (0..SIDE * SIDE).filter(|&i| mask[i as usize]);
    let span = |of: fn(u32) -> u32| {
        let (low, high) = (on().map(of).min().unwrap(), on().map(of).max().unwrap());
        (low + high + 1) as f32 / (2 * SIDE) as f32
    };
    (span(|i| i % SIDE), span(|i| i / SIDE))
}

/// How many connected regions of more than a few pixels the mask holds.
fn regions(mask: &[bool]) -> usize {
    let side = SIDE as i32;
    let mut left = mask.to_vec();
    let mut found = 0;
    for start in 0..left.len() {
        let (mut stack, mut area) = (vec![start as i32], 0);
        while let Some(i) = stack.pop() {
            if !std::mem::take(&mut left[i as usize]) {
                continue;
            }
            area += 1;
            for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                let (x, y) = (i % side + dx, i / side + dy);
                if (0..side).contains(&x) && (0..side).contains(&y) {
                    stack.push(y * side + x);
                }
            }
        }
        found += usize::from(area > 8);
    }
    found
}

#[test]
fn a_scene_is_a_function_of_seed_and_index() {
    for index in (0..50).rev() {
        let scene = Scene::draw(5, index);
        assert_eq!(scene, Scene::draw(5, index));
        assert_eq!(scene.render(48).rgb(), scene.render(48).rgb());
        assert_eq!(texts(&scene), texts(&Scene::draw(5, index)));
        assert_ne!(scene, Scene::draw(6, index));
        assert_ne!(scene, Scene::draw(5, index + 1));
    }
}

/// FNV-1a over pixels and captions: changes here change every training set drawn before.
#[test]
fn pictures_and_captions_are_the_same_everywhere() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for index in 0..300 {
        let scene = Scene::draw(2024, index);
        add(scene.render(if index % 2 == 0 { 48 } else { 64 }).rgb());
        for caption in scene.captions() {
            add(caption.text.as_bytes());
        }
    }
    assert_eq!(hash, 0xc553_1ab1_ab22_b705, "{hash:#018x}");
}

#[test]
fn every_kind_is_drawn_in_its_proportion() {
    let mut counts = BTreeMap::new();
    for scene in scenes(4000, None) {
        *counts.entry(format!("{:?}", scene.kind)).or_insert(0_u32) += 1;
    }
    for (kind, expected) in
        [("Single", 800), ("Counted", 800), ("Placed", 600), ("Related", 600), ("Composed", 1200)]
    {
        assert!(counts[kind].abs_diff(expected) < expected / 6, "{kind}: {counts:?}");
    }
}

#[test]
fn objects_are_whole_inside_the_frame() {
    for scene in scenes(700, None) {
        let mask = mask(&scene);
        for i in 0..SIDE {
            for at in [i, SIDE * (SIDE - 1) + i, SIDE * i, SIDE * i + SIDE - 1] {
                assert!(!mask[at as usize], "{:?}", scene.facts());
            }
        }
        for object in &scene.objects {
            let reach = object.radius * REACH;
            assert!(object.x - reach > 0.0 && object.x + reach < 1.0);
            assert!(object.y - reach > 0.0 && object.y + reach < 1.0);
        }
    }
}

#[test]
fn objects_do_not_overlap() {
    for scene in scenes(700, None).filter(|scene| scene.objects.len() > 1) {
        let masks: Vec<_> = (0..scene.objects.len()).map(|i| mask(&only(&scene, i))).collect();
        for (i, a) in masks.iter().enumerate() {
            for b in &masks[..i] {
                let both = a.iter().zip(b).filter(|&(&a, &b)| a && b).count();
                assert!(both <= 4, "{both} pixels: {:?}", scene.facts());
            }
        }
    }
}

#[test]
fn the_named_colour_prevails() {
    for scene in scenes(900, None) {
        for (i, object) in scene.objects.iter().enumerate() {
            let one = only(&scene, i);
            let mut votes = BTreeMap::new();
            let covered = pixels(&one).into_iter().zip(mask(&one));
            for (rgb, _) in covered.filter(|&(_, on)| on) {
                let nearest = Colour::ALL
                    .into_iter()
                    .min_by(|&a, &b| distance(rgb, middle(a)).total_cmp(&distance(rgb, middle(b))));
                *votes.entry(nearest.unwrap()).or_insert(0_u32) += 1;
            }
            let most = votes.iter().max_by_key(|(_, count)| **count);
            let (&most, _) = most.expect("the object shows");
            assert_eq!(most, object.colour, "{:?} {votes:?}", object.figure);
            assert!(
                contrasts(object.rgb, scene.backdrop_rgb),
                "{:?} before {:?}",
                object.colour,
                scene.backdrop
            );
        }
    }
}

#[test]
fn as_many_shapes_are_seen_as_are_counted() {
    let mut seen = [0_u32; 5];
    for scene in scenes(600, Some(Kind::Counted)) {
        let facts = scene.facts();
        let count = usize::from(facts.count.unwrap());
        seen[count] += 1;
        if facts.shape.is_some() {
            assert_eq!(regions(&mask(&scene)), count, "{facts:?}");
        }
    }
    assert!(seen[1..].iter().all(|&n| (110..190).contains(&n)), "{seen:?}");
}

#[test]
fn places_and_relations_are_where_they_say() {
    for scene in scenes(200, Some(Kind::Placed)) {
        let (x, y) = box_middle(&mask(&scene));
        let place = scene.facts().position.unwrap();
        let (dx, dy) = (x - 0.5, y - 0.5);
        let right = match place {
            Position::Left => dx < -0.15 && dy.abs() < 0.12,
            Position::Right => dx > 0.15 && dy.abs() < 0.12,
            Position::Top => dy < -0.15 && dx.abs() < 0.12,
            Position::Bottom => dy > 0.15 && dx.abs() < 0.12,
            Position::Center => dx.abs() < 0.12 && dy.abs() < 0.12,
        };
        assert!(right, "{place:?} at {x} {y}");
    }
    for scene in scenes(200, Some(Kind::Related)) {
        let [a, b] = [0, 1].map(|i| box_middle(&mask(&only(&scene, i))));
        let right = match scene.facts().relation.unwrap() {
            Relation::LeftOf => a.0 + 0.3 < b.0,
            Relation::RightOf => a.0 > b.0 + 0.3,
            Relation::Above => a.1 + 0.3 < b.1,
            Relation::Below => a.1 > b.1 + 0.3,
        };
        assert!(right, "{:?}", scene.facts());
        let [(first, colour), (second, other)] = scene.facts().related.unwrap();
        assert_ne!(colour, other, "{first:?} {second:?}");
    }
}

#[test]
fn sizes_are_told_apart() {
    for scene in scenes(300, Some(Kind::Single)) {
        let radius = scene.objects[0].radius;
        match scene.facts().size.unwrap() {
            Size::Small => assert!(radius < 0.2),
            Size::Large => assert!(radius > 0.3),
        }
    }
}

#[test]
fn captions_are_several_and_none_is_empty_or_twice() {
    for scene in scenes(1000, None) {
        for language in LANGUAGES {
            let captions = scene.captions().into_iter();
            let own: Vec<String> = captions
                .filter(|caption| caption.language.as_deref() == Some(language))
                .map(|caption| caption.text)
                .collect();
            assert!(own.len() >= 8, "{own:?}");
            let drawn: HashSet<String> =
                (0..40).map(|key| scene.caption(language, key).unwrap().text).collect();
            assert!(drawn.len() > 4);
            assert!(drawn.iter().all(|text| own.contains(text)));
        }
        let texts = texts(&scene);
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
        for text in &texts {
            assert_eq!(text.trim(), text);
            assert!(!text.is_empty() && !text.contains("  "), "{text:?}");
        }
        assert!(scene.caption("fr", 0).is_none());
    }
}

/// The label of an attribute is itself a caption of the scene, in both languages.
#[test]
fn labels_are_captions_of_the_scenes_they_are_right_for() {
    let mut asked = HashSet::new();
    for scene in scenes(1500, None) {
        let facts = scene.facts();
        let texts: HashSet<String> = texts(&scene).into_iter().collect();
        for attribute in Attribute::ALL {
            let Some(index) = facts.label(attribute) else {
                continue;
            };
            asked.insert(attribute);
            for language in LANGUAGES {
                let labels = attribute_labels(attribute, language);
                let label = &labels[index];
                let alone = matches!(facts.kind, Kind::Single | Kind::Composed);
                let said = match attribute {
                    Attribute::Colour | Attribute::Shape | Attribute::Thing => alone,
                    Attribute::Count | Attribute::Position | Attribute::Size => true,
                };
                assert!(!said || texts.contains(label), "{label}: {texts:?}");
            }
        }
    }
    assert_eq!(asked.len(), Attribute::ALL.len());
    for attribute in Attribute::ALL {
        let [english, korean] = LANGUAGES.map(|language| attribute_labels(attribute, language));
        assert_eq!(english.len(), korean.len());
        let distinct: HashSet<_> = english.iter().chain(&korean).collect();
        assert_eq!(distinct.len(), 2 * english.len());
        assert!(attribute_labels(attribute, "de").is_empty());
    }
}

fn object(figure: Figure, colour: Colour) -> Object {
    Object {
        figure,
        colour,
        rgb: middle(colour),
        x: 0.5,
        y: 0.5,
        radius: 0.2,
        rotation: 0.0,
        stretch: 1.0,
        mirrored: false,
        outlined: false,
        detail: 1,
    }
}

fn scene(kind: Kind, objects: Vec<Object>) -> Scene {
    Scene {
        kind,
        backdrop: Backdrop::White,
        backdrop_rgb: [250; 3],
        texture: Texture::Plain,
        ground: None,
        objects,
        size: None,
        position: None,
        relation: None,
    }
}

fn assert_says(scene: &Scene, expected: &[&str]) {
    let texts = texts(scene);
    for text in expected {
        assert!(texts.iter().any(|t| t == text), "{text}: {texts:#?}");
    }
}

#[test]
fn captions_read_as_people_write() {
    let circle = object(Figure::Shape(Shape::Circle), Colour::Red);
    assert_says(
        &scene(Kind::Counted, vec![circle; 3]),
        &[
            "빨간 원 세 개",
            "세 개의 빨간 원",
            "빨간 원이 세 개 있다",
            "도형 세 개",
            "three red circles",
            "there are three red circles",
            "three shapes",
        ],
    );
    let cat = object(Figure::Thing(Thing::Cat), Colour::Black);
    assert_says(
        &scene(Kind::Counted, vec![cat; 2]),
        &["검은 고양이 두 마리", "고양이 두 마리", "two black cats"],
    );
    let apple = object(Figure::Thing(Thing::Apple), Colour::Red);
    assert_says(
        &scene(Kind::Composed, vec![apple]),
        &[
            "빨간 사과",
            "사과",
            "빨간 사과 그림",
            "빨간 사과가 있는 그림",
            "빨간 사과를 그린 그림",
            "an apple",
            "a red apple",
            "a picture of a red apple",
        ],
    );
    let triangle = object(Figure::Shape(Shape::Triangle), Colour::Green);
    let mut placed = scene(Kind::Placed, vec![triangle]);
    placed.position = Some(Position::Left);
    assert_says(
        &placed,
        &[
            "왼쪽에 있는 초록색 삼각형",
            "초록색 삼각형이 왼쪽에 있다",
            "초록색 삼각형은 그림 왼쪽에 있다",
            "a green triangle on the left",
        ],
    );
    let star = object(Figure::Shape(Shape::Star), Colour::Red);
    let blue = object(Figure::Shape(Shape::Circle), Colour::Blue);
    let mut related = scene(Kind::Related, vec![star, blue]);
    related.relation = Some(Relation::Above);
    assert_says(
        &related,
        &[
            "파란 원 위에 있는 빨간 별",
            "빨간 별 아래에 있는 파란 원",
            "빨간 별과 파란 원",
            "파란 원과 빨간 별",
            "a red star above a blue circle",
            "a blue circle below a red star",
        ],
    );
    let orange = object(Figure::Shape(Shape::Hexagon), Colour::Orange);
    let mut single = scene(Kind::Single, vec![orange]);
    single.size = Some(Size::Small);
    assert_says(
        &single,
        &[
            "작은 주황색 육각형",
            "주황색 도형",
            "하얀 배경의 주황색 육각형",
            "an orange hexagon",
            "a small orange hexagon",
            "a hexagon",
            "an orange shape",
            "an orange hexagon on a white background",
        ],
    );
    let said = describe(Figure::Thing(Thing::House), Colour::Yellow, "ko");
    assert_eq!(said.as_deref(), Some("노란 집"));
    assert_eq!(describe(Figure::Thing(Thing::House), Colour::Yellow, ""), None);
}

#[test]
fn a_tenth_of_the_combinations_is_held_out() {
    let figures = || {
        let things = Thing::ALL.into_iter().map(Figure::Thing);
        Shape::ALL.into_iter().map(Figure::Shape).chain(things)
    };
    let (mut held, mut all) = (0, 0);
    for figure in figures() {
        let of = figure.colours().iter();
        let own = of.filter(|&&colour| is_held_out(figure, colour)).count();
        assert!(own * 2 < figure.colours().len());
        held += own;
        all += figure.colours().len();
    }
    assert_eq!((held, all), (34, 343));
    assert!(!is_held_out(Figure::Thing(Thing::Apple), Colour::Red));
    for index in 0..3000 {
        for held_out in [false, true] {
            let options = SceneOptions { held_out, kind: None };
            for object in Scene::draw_with(3, index, &options).objects {
                assert_eq!(is_held_out(object.figure, object.colour), held_out);
                assert!(object.figure.colours().contains(&object.colour));
            }
        }
    }
}

#[test]
fn every_combination_for_training_is_drawn() {
    let mut drawn = HashSet::new();
    for scene in scenes(12_000, None) {
        for object in scene.objects {
            drawn.insert((object.figure, object.colour));
        }
    }
    assert_eq!(drawn.len(), 343 - 34);
}

#[test]
fn names_are_complete_and_distinct() {
    for (table, counted) in
        [(colours(), false), (shapes(), true), (counts(), false), (positions(), false), (things(), true)]
    {
        for language in LANGUAGES {
            let names: Vec<_> = table.iter().flat_map(|n| n.all(language)).collect();
            assert!(names.iter().all(|name| !name.is_empty()));
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        }
        for names in table.iter().filter(|_| counted) {
            assert!(!names.plural.is_empty() && !names.counter.is_empty());
        }
        assert!(table.iter().all(|names| names.usual("xx").is_none()));
    }
}

#[test]
fn any_size_is_drawn() {
    for scene in scenes(40, None) {
        for size in [0, 1, 2, 3, 7, 16, 257] {
            assert_eq!(scene.render(size).width(), size.max(1));
        }
    }
    assert_eq!(Scene::draw(0, 0).render(u32::MAX).height(), 4096);
}

/// Which answers stand to each question of a scene.
fn answers(scene: &Scene, language: &str, topic: Topic) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for asked in scene.questions(language, 5).into_iter().filter(|asked| asked.topic == topic) {
        all.entry(asked.question).or_default().push(asked.answer);
    }
    all
}

#[test]
fn a_question_has_one_answer_and_yes_or_no_has_both() {
    for language in ["en", "ko"] {
        let mut said: BTreeMap<String, usize> = BTreeMap::new();
        for scene in scenes(400, None) {
            assert!(!scene.questions(language, 5).is_empty());
            for topic in [Topic::Colour, Topic::Count, Topic::Position, Topic::Size, Topic::YesNo] {
                for (question, answers) in answers(&scene, language, topic) {
                    assert_eq!(answers.len(), 1, "{question}: {answers:?}");
                    if topic == Topic::YesNo {
                        *said.entry(answers[0].clone()).or_default() += 1;
                    }
                }
            }
        }
        assert!(said.len() == 2 && said.values().all(|&count| count > 200), "{said:?}");
    }
    assert!(scenes(1, None).all(|scene| scene.questions("fr", 5).is_empty()));
}

#[test]
fn of_two_things_each_is_asked_for_its_own_colour() {
    let mut asked = 0;
    for scene in scenes(200, Some(Kind::Related)) {
        let [first, second] = scene.objects[..] else { panic!("two things") };
        let english = answers(&scene, "en", Topic::Colour);
        let korean = answers(&scene, "ko", Topic::Colour);
        if first.figure == second.figure {
            assert!(english.is_empty() && korean.is_empty());
            continue;
        }
        for object in [first, second] {
            let names = object.figure.names();
            let hue = object.colour.names().usual("en").expect("a name");
            let question = format!("what colour is the {}?", names.usual("en").expect("a name"));
            assert_eq!(english[&question], [hue]);
            let topic = with_particle(names.usual("ko").expect("a name"), Particle::Topic);
            assert_eq!(korean[&format!("{topic} 무슨 색이야?")], [object.colour.korean_noun()]);
            asked += 1;
        }
    }
    assert!(asked > 200, "{asked}");
}
