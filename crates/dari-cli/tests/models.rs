//! `dari models` and `dari doctor`: what there is, and what is not.

mod common;

use common::{Home, fixture, run, text};

#[test]
fn the_list_holds_the_embedded_model_and_the_short_names() {
    let home = Home::new();
    let ran = home.dari(["models", "list"]).ok();
    for word in ["mini", "clip-b32", "openai/clip-vit-base-patch32", "siglip2-b16"] {
        assert!(ran.out.contains(word), "{word}\n{ran}");
    }
    let models = home.dari(["models", "list", "--json"]).ok().json_lines();
    assert_eq!(text(&models[0], "name"), "mini");
    assert_eq!(text(&models[0], "where"), "embedded");
    let hub = models.iter().filter(|model| model["where"] == "hub");
    let hub: Vec<_> = hub.map(|model| text(model, "id")).collect();
    assert!(hub.contains(&"google/vit-base-patch16-224"), "{hub:?}");
    assert!(!models.iter().any(|model| model["where"] == "fetched"));
}

#[test]
fn the_embedded_model_tells_what_it_is() {
    let home = Home::new();
    let shown = home.dari(["models", "show", "mini", "--json"]).ok().json();
    assert_eq!(text(&shown, "model"), "mini");
    assert_eq!(text(&shown, "kind"), "clip");
    assert_eq!(shown["abilities"]["compare"], true);
    assert_eq!(shown["abilities"]["classify"], false);
    assert!(shown["weights"].as_u64() > Some(10_000));
    assert!(shown["dim"].as_u64() > Some(0));
    assert!(shown["tokens"].as_u64() > Some(0));
    let ran = home.dari(["models", "show", "mini"]).ok();
    assert!(ran.out.contains("mini") && ran.out.contains("clip"));
}

#[test]
fn checkpoints_of_every_kind_tell_what_they_are() {
    let home = Home::new();
    for (name, kind, dim) in [
        ("clip-openai", "clip", 20),
        ("clip-openai-bin", "clip", 20),
        ("clip-openai-sharded", "clip", 20),
        ("clip-openai-bf16", "clip", 20),
        ("open-clip", "clip", 12),
        ("siglip", "siglip", 16),
        ("siglip2", "siglip", 16),
        ("vit", "vit", 24),
        ("bert", "bert", 24),
    ] {
        let model = fixture(name).display().to_string();
        let shown = home.dari(["models", "show", &model, "--json"]).ok().json();
        assert_eq!(text(&shown, "kind"), kind, "{name}");
        assert_eq!(shown["dim"], dim, "{name}");
    }
}

#[test]
fn one_model_in_three_files_has_one_set_of_weights() {
    let home = Home::new();
    let weights = |name: &str| {
        let model = fixture(name).display().to_string();
        let shown = home.dari(["models", "show", &model, "--json"]).ok().json();
        shown["weights"].clone()
    };
    let whole = weights("clip-openai");
    assert_eq!(whole, weights("clip-openai-bin"));
    assert_eq!(whole, weights("clip-openai-sharded"));
}

#[test]
fn an_unknown_name_is_a_wrong_command_line() {
    let home = Home::new();
    home.copy(&common::sample("red-apple.png"), "p/red-apple.png");
    let wrong = "no-such-model";
    for arguments in [
        vec!["models", "show", wrong],
        vec!["models", "pull", wrong],
        vec!["embed", "--texts", "a", "--model", wrong],
        vec!["classify", "p", "--labels", "a", "--model", wrong],
        vec!["similarity", "--images", "p", "--texts", "a", "--model", wrong],
        vec!["index", "p", "--model", wrong],
        vec!["search", "a", "--in", "p", "--model", wrong],
    ] {
        let ran = home.dari(&arguments).exits(2);
        ran.one_error(&[wrong, "dari models list"]);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn the_hub_is_left_alone_offline() {
    let home = Home::new();
    for model in ["openai/clip-vit-base-patch32", "clip-b32"] {
        for arguments in [
            vec!["models", "show", model],
            vec!["models", "pull", model],
            vec!["embed", "--texts", "a", "--model", model],
        ] {
            let ran = home.dari(&arguments).exits(1);
            ran.one_error(&["openai/clip-vit-base-patch32", "HF_HUB_OFFLINE"]);
        }
    }
}

#[test]
fn pulling_the_embedded_model_needs_no_network() {
    let home = Home::new();
    home.dari(["models", "pull", "mini"]).ok();
}

#[test]
fn doctor_finds_a_sound_home() {
    let home = Home::new();
    let found = home.dari(["doctor", "--json"]).ok().json();
    assert_eq!(text(&found, "version"), env!("CARGO_PKG_VERSION"));
    assert!(found["threads"].as_u64() > Some(0));
    let devices = found["devices"].as_array().expect("devices");
    assert!(devices.iter().any(|device| device == "cpu"));
    assert_eq!(found["offline"], true);
    assert_eq!(found["problems"], serde_json::json!([]));
    assert_eq!(found["data"], home.path("data").display().to_string());
    assert!(text(&found, "hub_cache").starts_with(&home.path("hub").display().to_string()));
    assert_eq!(found["mini"]["compare"], true);
    let ran = home.dari(["doctor"]).ok();
    assert!(ran.out.contains("cpu") && ran.out.contains("mini"));
}

#[cfg(target_os = "linux")]
#[test]
fn doctor_misses_a_place_for_the_index() {
    let home = Home::new();
    let mut command = home.command(["doctor", "--json"]);
    command.env_remove("DARI_DATA_HOME").env("HOME", "").env("XDG_DATA_HOME", "");
    let ran = run(command);
    // Where the system knows a home by other means, that is as good.
    if ran.code == Some(1) {
        let found = ran.json();
        let problem = found["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains("DARI_DATA_HOME"), "{ran}");
    }
}

#[test]
fn doctor_finds_that_the_index_has_no_room() {
    let home = Home::new();
    home.write("file", "no folder");
    let mut command = home.command(["doctor", "--json"]);
    command.env("DARI_DATA_HOME", home.path("file"));
    let ran = run(command).exits(1);
    let problems = ran.json()["problems"].to_string();
    assert!(problems.contains("file"), "{ran}");
}
