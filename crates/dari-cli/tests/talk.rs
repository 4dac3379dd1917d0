//! `dari complete` and `dari chat`, from outside.

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{Home, fixture};
use serde_json::Value;

fn model(name: &str) -> String {
    fixture(name).display().to_string()
}

/// Runs `dari chat` with these lines piped in; gives status, what it said and what it complained of.
fn chat(home: &Home, arguments: &[&str], lines: &str) -> (Option<i32>, String, String) {
    let mut command = home.command([&["chat"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn a_text_goes_on_as_in_transformers() {
    let home = Home::new();
    for case in ["gpt2", "llama", "qwen2"] {
        let inputs = std::fs::read_to_string(fixture(case).join("inputs.json")).expect("inputs");
        let inputs: Value = serde_json::from_str(&inputs).expect("JSON");
        let prompts: Vec<&str> = inputs["prompts"]
            .as_array()
            .expect("prompts")
            .iter()
            .map(|p| p.as_str().expect("a text"))
            .collect();
        let model = model(case);
        let mut arguments = vec!["complete"];
        arguments.extend(&prompts);
        arguments.extend(["--model", &model, "--max-tokens", "24", "--json"]);
        let ran = home.dari(arguments).exits(0);
        let found = lines(&ran.out);
        for ((found, text), prompt) in
            found.iter().zip(inputs["greedy_texts"].as_array().expect("texts")).zip(&prompts)
        {
            assert_eq!(found["prompt"], *prompt);
            assert_eq!(found["text"], *text, "{case}: {prompt:?}");
            assert!(["stop", "length"].iter().any(|ended| found["ended"] == *ended));
        }
        assert_eq!(found.len(), prompts.len());
    }
}

#[test]
fn guesses_leave_the_answer_as_it_is() {
    let home = Home::new();
    // It speaks as long as it may behind this.
    let plain = model("qwen2");
    let run = |more: &[&str]| {
        let arguments =
            [&["complete", "the red fox", "--model", &plain, "--max-tokens", "32", "--json"], more];
        lines(&home.dari(arguments.concat()).exits(0).out).remove(0)
    };
    let expected = run(&[]);
    assert!(expected.get("guesses").is_none());
    assert_eq!(expected["tokens"], 32);
    for draft in ["lookup", &plain] {
        let mut found = run(&["--draft", draft]);
        let guesses = found.as_object_mut().and_then(|found| found.remove("guesses")).expect("guesses");
        let [made, right] = ["made", "right"].map(|name| guesses[name].as_u64().expect("a number"));
        assert!(made > 0 && right <= made, "{draft}: {right} of {made}");
        // A model guesses itself.
        assert!(draft == "lookup" || right == made, "{right} of {made}");
        assert_eq!(found, expected, "{draft}");
    }
    let other = model("gpt2");
    home.dari(["complete", "x", "--model", &plain, "--draft", &other]).exits(1).one_error(&["tokens"]);
    home.dari(["complete", "x", "--model", &plain, "--draft", "mini"]).exits(1).one_error(&["mini"]);
}

#[test]
fn an_answer_follows_from_its_cache_and_not_from_threads() {
    let home = Home::new();
    for model in [model("llama"), model("mistral"), model("gguf-qwen2/model.gguf")] {
        let run = |more: &[&str]| {
            let arguments = ["complete", "a fox", "--model", &model, "--json", "--max-tokens", "12"];
            lines(&home.dari([&arguments, more].concat()).exits(0).out).remove(0)
        };
        let plain = run(&["--threads", "1"]);
        assert_eq!(run(&["--threads", "2"]), plain, "{model}");
        assert_eq!(run(&["--threads", "5"]), plain, "{model}");
        for cache in ["f16", "int8"] {
            let kept = run(&["--cache", cache]);
            assert_ne!(kept["confidence"], plain["confidence"], "{model} {cache}");
            let mut guessed = run(&["--cache", cache, "--draft", "lookup"]);
            guessed.as_object_mut().and_then(|found| found.remove("guesses")).expect("guesses");
            assert_eq!(guessed, kept, "{model} {cache}");
            assert_ne!(run(&["--cache", cache, "--beams", "2"])["text"], "");
        }
    }
    home.dari(["complete", "x", "--cache", "f8"]).exits(2);
}

#[test]
fn an_answer_stops_where_it_is_told() {
    let home = Home::new();
    let model = model("llama");
    let run = |more: &[&str]| {
        let arguments = [&["complete", "a fox", "--model", &model, "--json"], more].concat();
        lines(&home.dari(arguments).exits(0).out).remove(0)
    };
    let whole = run(&["--max-tokens", "12"])["text"].as_str().expect("a text").to_owned();
    let stop: String = whole.chars().skip(2).take(1).collect();
    let cut = run(&["--max-tokens", "12", "--stop", &stop]);
    assert_eq!(cut["text"], whole.split(&stop).next().expect("a part"));
    assert_eq!(cut["ended"], "stop");
    let drawn = |seed: &str| run(&["--max-tokens", "12", "--temperature", "1.5", "--seed", seed]);
    assert_eq!(drawn("3"), drawn("3"));
    assert_ne!(drawn("3")["text"], drawn("4")["text"]);
    assert_ne!(run(&["--max-tokens", "12", "--beams", "4"])["text"], "");
}

#[test]
fn a_chat_remembers_and_reads_only_what_is_new() {
    let home = Home::new();
    let model = model("llama");
    let file = home.path("talk.json").display().to_string();
    let said = format!("/system x\na\nb\n/save {file}\n/reset\na\n");
    let (code, out, err) = chat(&home, &["--model", &model, "--json", "--max-tokens", "3"], &said);
    assert_eq!(code, Some(0), "{err}");
    let answers = lines(&out);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["text"], answers[2]["text"]);
    assert!(answers[1]["reused_tokens"].as_u64() > Some(10), "{}", answers[1]);
    let saved: Value = serde_json::from_slice(&std::fs::read(&file).expect("saved")).expect("JSON");
    let roles: Vec<&Value> =
        saved["messages"].as_array().expect("messages").iter().map(|m| &m["role"]).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    let (code, out, _) =
        chat(&home, &["--model", &model, "--json", "--max-tokens", "3"], &format!("/load {file}\nc\n"));
    assert_eq!((code, lines(&out).len()), (Some(0), 1));
    assert!(lines(&out)[0]["prompt_tokens"].as_u64() > answers[1]["prompt_tokens"].as_u64());
}

#[test]
fn what_cannot_be_is_one_line_and_the_chat_goes_on() {
    let home = Home::new();
    let model = model("llama");
    home.write("bad.json", "{\"format\": 1, \"messages\": [{\"role\": \"user\"}]}");
    let bad = home.path("bad.json").display().to_string();
    let long = "word ".repeat(400);
    let said = format!("/load {bad}\n/load nothing.json\n/image cat.png\n{long}\nHi\n");
    let (code, out, err) = chat(&home, &["--model", &model, "--json", "--max-tokens", "4"], &said);
    assert_eq!(code, Some(1));
    assert_eq!(lines(&out).len(), 1, "{out}");
    for expected in ["not a saved conversation", "nothing.json", "sees no pictures", "shorten the text"] {
        assert_eq!(err.lines().filter(|line| line.contains(expected)).count(), 1, "{expected}: {err}");
    }
}

#[test]
fn wrong_models_and_options_are_told() {
    let home = Home::new();
    home.dari(["complete", "x"]).exits(1).one_error(&["mini", "language model"]);
    home.dari(["complete", "x", "--model", &model("gpt2"), "--top-p", "2"]).exits(2).one_error(&["--top-p"]);
    home.dari(["complete", "--model", &model("gpt2")]).exits(2).one_error(&["no text"]);
    home.dari(["chat", "--model", &model("gpt2")]).exits(1).one_error(&["chat template"]);
    home.write("torn.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    home.dari(["complete", "x", "--model", "torn.gguf"]).exits(1).one_error(&["torn.gguf"]);
}

/// What the fixture's chat of that number says greedily.
fn greedy(case: &str, number: usize) -> String {
    let inputs = std::fs::read_to_string(fixture(case).join("inputs.json")).expect("inputs");
    let inputs: Value = serde_json::from_str(&inputs).expect("JSON");
    inputs["greedy_texts"][number].as_str().expect("a text").to_owned()
}

fn picture(name: &str) -> String {
    fixture("pictures").join(name).display().to_string()
}

#[test]
fn a_question_about_a_picture_is_answered_as_in_transformers() {
    let home = Home::new();
    for (case, file, question) in [
        ("llava-clip", "landscape.png", "a cat?"),
        ("llava-siglip", "landscape.png", "a cat?"),
        ("idefics3", "landscape.png", "a cat?"),
        ("smolvlm", "landscape.png", "a cat?"),
    ] {
        let model = model(case);
        let arguments = ["ask", &picture(file), question, "--model", &model, "--max-tokens", "16", "--json"];
        let found = lines(&home.dari(arguments).exits(0).out).remove(0);
        assert_eq!(found["text"], greedy(case, 0), "{case}");
        assert_eq!(found["picture"], picture(file));
    }
}

#[test]
fn many_pictures_have_a_line_each_and_what_fails_is_named() {
    let home = Home::new();
    let model = model("smolvlm");
    home.write("broken.png", b"\x89PNG\r\n\x1a\nnothing");
    let broken = home.path("broken.png").display().to_string();
    let (a, b) = (picture("square.png"), picture("sliver.png"));
    let captions = ["caption", &a, &broken, &b, "--model", &model, "--max-tokens", "5"];
    let told = lines(&home.dari(captions.iter().chain(&["--json"])).exits(1).out);
    let names: Vec<&Value> = told.iter().map(|line| &line["picture"]).collect();
    assert_eq!(names, [&a, &broken, &b]);
    assert!(told[1]["error"].is_string() && told[2]["text"].is_string());
    let ran = home.dari(captions).exits(1);
    let starts: Vec<&str> = ran.out.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(starts, [a.as_str(), b.as_str()]);
    ran.one_error(&["broken.png"]);
    let together = ["ask", &a, &b, "which?", "--together", "--model", &model, "--max-tokens", "4", "--json"];
    let found = lines(&home.dari(together).exits(0).out).remove(0);
    assert_eq!(found["pictures"].as_array().map(Vec::len), Some(2));
}

#[test]
fn pictures_that_are_answered_together_get_what_each_gets_alone() {
    let home = Home::new();
    let files = ["square.png", "sliver.png", "landscape.png", "square.png"].map(picture);
    for (case, how) in [
        ("smolvlm", &["--max-tokens", "12"][..]),
        ("llava-siglip", &["--max-tokens", "12", "--cache", "int8"]),
        ("llava-siglip", &["--max-tokens", "12", "--temperature", "2", "--seed", "5"]),
        ("llava-siglip", &["--max-tokens", "6", "--beams", "2"]),
        ("llava-siglip", &["--max-tokens", "12", "--draft", "lookup"]),
    ] {
        let model = model(case);
        let caption = |files: &[String], more: &[&str]| {
            let mut arguments = vec!["caption", "--model", &model, "--json"];
            arguments.extend(how.iter().chain(more));
            arguments.extend(files.iter().map(String::as_str));
            lines(&home.dari(arguments).exits(0).out)
        };
        let together = caption(&files, &[]);
        assert_eq!(together.len(), files.len());
        assert_eq!(together, caption(&files, &["--threads", "1"]), "{case} {how:?}");
        for (file, found) in files.iter().zip(&together) {
            let alone = caption(std::slice::from_ref(file), &[]).remove(0);
            for field in ["picture", "text", "tokens", "ended"] {
                assert_eq!(found[field], alone[field], "{field} of {file}, {case} {how:?}");
            }
            // What was read before is read in other parts.
            let sure = [found, &alone].map(|one| one["confidence"].as_f64().expect("a number"));
            assert!((sure[0] - sure[1]).abs() < 1e-6, "{file}, {case} {how:?}: {sure:?}");
        }
        let by_two = caption(&files, &["--batch", "2"]);
        let texts = |all: &[Value]| all.iter().map(|one| one["text"].clone()).collect::<Vec<_>>();
        assert_eq!(texts(&by_two), texts(&together), "{case} {how:?}");
    }
}

#[test]
fn questions_without_pictures_and_pictures_without_sight_are_told() {
    let home = Home::new();
    let seeing = model("smolvlm");
    home.dari(["ask", "what?", "--model", &seeing]).exits(2).one_error(&["a picture and a question"]);
    let file = picture("square.png");
    home.dari(["ask", &file, &file, "--model", &seeing]).exits(2).one_error(&["is the question"]);
    home.dari(["ask", &file, "what?", "--model", &model("llama")]).exits(2).one_error(&["LLaVA"]);
    // More tiles than the context holds.
    let many: Vec<String> = std::iter::repeat_n(file, 24).collect();
    let mut arguments = vec!["ask"];
    arguments.extend(many.iter().map(String::as_str));
    arguments.extend(["all of them?", "--together", "--model", &seeing]);
    home.dari(arguments).exits(1).one_error(&["fewer or smaller pictures"]);
}

#[test]
fn a_chat_about_a_picture_keeps_what_it_saw() {
    let home = Home::new();
    let model = model("idefics3");
    let (a, b) = (picture("landscape.png"), picture("portrait.png"));
    let file = home.path("talk.json").display().to_string();
    let said = format!("x\ny\n/save {file}\n/image {b}\nz\n/load {file}\nw\n");
    let (code, out, err) = chat(&home, &[&a, "--model", &model, "--json", "--max-tokens", "3"], &said);
    assert_eq!(code, Some(0), "{err}");
    let answers = lines(&out);
    assert_eq!(answers.len(), 4);
    // The picture's tokens are not read again.
    assert!(answers[1]["reused_tokens"].as_u64() > Some(100), "{}", answers[1]);
    assert!(answers[2]["prompt_tokens"].as_u64() > answers[1]["prompt_tokens"].as_u64().map(|n| n + 60));
    assert!(answers[3]["prompt_tokens"].as_u64() < answers[2]["prompt_tokens"].as_u64());
    let saved: Value = serde_json::from_slice(&std::fs::read(&file).expect("saved")).expect("JSON");
    assert_eq!(saved["messages"][0]["pictures"], serde_json::json!([a]));
}

#[test]
fn what_pictures_cost_is_shown() {
    let home = Home::new();
    let shown = home.dari(["models", "show", &model("smolvlm"), "--json"]).exits(0).json();
    assert_eq!(shown["abilities"]["ask"], true);
    // 1920 x 1080 becomes 40 x 24, three by two tiles of 16, and the whole: 7 pieces of 4 tokens.
    assert_eq!(shown["picture_tokens"][2], serde_json::json!({"width": 1920, "height": 1080, "tokens": 28}));
    let plain = home.dari(["models", "show", &model("qwen2"), "--json"]).exits(0).json();
    assert_eq!(plain["abilities"]["ask"], false);
    assert_eq!(plain["picture_tokens"], serde_json::json!([]));
}

#[test]
fn the_embedded_model_speaks_both_languages_and_says_when_it_is_unsure() {
    let home = Home::new();
    let apple = common::sample("red-apple.png").display().to_string();
    assert_eq!(home.dari(["caption", &apple]).ok().out.trim(), "a red apple");
    assert_eq!(home.dari(["ask", &apple, "사과는 무슨 색이야?"]).ok().out.trim(), "빨간색");
    let said = home.dari(["caption", &apple, "--prompt", "그림을 설명해 줘.", "--json"]).ok().json();
    assert_eq!((&said["text"], &said["unsure"]), (&"빨간 사과".into(), &false.into()));
    // Noise is like nothing that it knows.
    let noise = home.write(
        "noise.png",
        common::pictures::png(64, 64, &|x, y| {
            let mix = x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503).wrapping_mul(x + 7);
            [(mix >> 3) as u8, (mix >> 11) as u8, (mix >> 19) as u8]
        }),
    );
    let noise = noise.display().to_string();
    let said = home.dari(["caption", &noise, "--json"]).ok().json();
    assert_eq!(said["unsure"], true, "{said}");
    assert!(home.dari(["caption", &noise]).ok().out.contains("(unsure)"));
    let (code, out, err) = chat(&home, &[&apple], "what is this?\nwhat colour is it?\n");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("apple"), "{out}");
}

#[test]
fn an_answer_is_looked_for_in_the_picture() {
    let home = Home::new();
    let star = common::sample("red-star-above-blue-circle.png").display().to_string();
    let drawn = home.path("look.png");
    let arguments =
        ["look", &star, "what is above the blue circle?", "--model", "mini-voice", "--json", "--png"];
    let arguments = arguments.iter().map(|x| (*x).to_owned()).chain([drawn.display().to_string()]);
    let found = home.dari(arguments).ok().json();
    assert_eq!(found["answer"], "a red star");
    assert_eq!((found["down"].as_u64(), found["across"].as_u64()), (Some(4), Some(4)));
    let rows = found["rollout"].as_array().expect("rows");
    let all: Vec<f64> = rows.iter().flat_map(|row| common::numbers(row)).collect();
    assert_eq!(all.len(), 16);
    assert!(all.iter().all(|x| (0.0..=1.0).contains(x)) && all.contains(&1.0), "{all:?}");
    let share = found["share"].as_f64().expect("a share");
    assert!(share > 0.0 && share < 1.0);
    let (width, height) = common::pictures::png_size(&std::fs::read(&drawn).expect("drawn"));
    assert!(width > 2 * height - 20 && height > 400);
    // Of tiles the map is put together.
    let picture = picture("landscape.png");
    let found = home.dari(["look", &picture, "what?", "--model", &model("smolvlm"), "--json"]).ok().json();
    assert_eq!(found["rollout"].as_array().map(Vec::len).map(|n| n as u64), found["down"].as_u64());
}

#[test]
fn an_adapter_speaks_beside_its_model_and_is_merged_into_it() {
    let home = Home::new();
    let adapter = model("llama-lora");
    let ask = |model: &str| {
        let ran = home.dari(["complete", "the red fox", "--model", model, "--max-tokens", "8", "--json"]);
        lines(&ran.ok().out).remove(0)["text"].clone()
    };
    let merged = home.path("merged").display().to_string();
    home.dari(["models", "merge", &adapter, &merged]).ok();
    assert_eq!(ask(&adapter), ask(&merged));
    assert_ne!(ask(&adapter), ask(&model("llama")));
    home.dari(["models", "merge", &model("llama"), &merged]).exits(1).one_error(&["no adapter"]);
    // What is there is not written over.
    home.dari(["models", "merge", &adapter, &merged]).exits(1).one_error(&["there"]);
}
