//! Language models against transformers: tokens, chats, logits, greedy text, beams, warpers; see `parity/`.
#![allow(clippy::print_stdout)]

mod support;

use candle_core::{Device, Tensor};
use dari_files::Folder;
use dari_models::Loaded;
use dari_models::capability::CausalLm;
use dari_models::generate::{
    BeamOptions, Decoder, Draft, Early, Guess, Lookup, Prompt, Said, Sampling, generate, generate_ahead,
    sampler, search,
};
use dari_models::language::llama::{Llama, LlamaConfig};
use dari_nn::cache::CacheFormat;
use dari_nn::{Cache, Precision, Weights};
use serde_json::Value;
use support::{Expected, HINT, repository};

const CASES: [&str; 5] = ["gpt2", "llama", "llama-rope3", "mistral", "qwen2"];

fn load(case: &str) -> (Loaded, Expected) {
    let loaded = support::load(case);
    assert_eq!(loaded.unused, Vec::<String>::new(), "{case}");
    (loaded, Expected::of(case, HINT))
}

fn model(loaded: &Loaded) -> &dyn CausalLm {
    loaded.model.causal().expect("a language model")
}

/// The prompts' tokens, without the padding before them.
fn prompts(expected: &Expected) -> Vec<Prompt> {
    let (ids, mask) = (expected.rows("input_ids"), expected.rows("attention_mask"));
    let kept = |(ids, mask): (Vec<u32>, Vec<u32>)| {
        ids.into_iter().zip(mask).filter(|(_, bit)| *bit == 1).map(|(id, _)| id).collect()
    };
    ids.into_iter().zip(mask).map(kept).map(Prompt::words).collect()
}

fn say(model: &dyn CausalLm, prompts: &[Prompt], sampling: Sampling, ends: &[u32], most: usize) -> Vec<Said> {
    let mut states = vec![model.begin(); prompts.len()];
    generate(model, &mut states, prompts, sampling, ends, most, &mut |_, _| true).expect("an answer")
}

/// An answer with the token that ended it, as transformers gives it.
fn whole(said: &Said, expected: &[u32], ends: &[u32]) -> Vec<u32> {
    let mut tokens = said.tokens.clone();
    if said.ended == dari_models::generate::Ended::Stop {
        let end = *expected.last().expect("an end");
        assert!(ends.contains(&end));
        tokens.push(end);
    }
    tokens
}

#[test]
fn tokens_are_transformers_own() {
    for case in CASES {
        let (loaded, expected) = load(case);
        let words = loaded.processor.words().expect("a tokenizer");
        let lengths = expected.rows("text_lengths").concat();
        let mut all = expected.rows("text_ids").concat().into_iter();
        for (text, length) in expected.strings("texts").iter().zip(lengths) {
            let ids: Vec<u32> = all.by_ref().take(length as usize).collect();
            assert_eq!(words.encode(text, true).expect("ids"), ids, "{case}: {text:?}");
        }
        for (prompt, text) in prompts(&expected).iter().zip(expected.strings("prompts")) {
            assert_eq!(words.encode(&text, true).expect("ids"), prompt.ids, "{case}: {text:?}");
        }
        let greedy = expected.rows("greedy");
        for (name, plain) in [("greedy_texts", true), ("greedy_texts_with_specials", false)] {
            for (ids, text) in greedy.iter().zip(expected.strings(name)) {
                assert_eq!(words.decode(ids, plain).expect("text"), text, "{case} {name}");
                if plain {
                    let mut stream = words.stream();
                    let mut said: String = ids.iter().map(|&id| stream.push(id).expect("text")).collect();
                    said += &stream.finish().expect("text");
                    assert_eq!(said, text, "{case}, token by token");
                }
            }
        }
    }
}

#[test]
fn chats_are_rendered_as_the_checkpoint_writes_them() {
    let mut rendered = 0;
    for case in CASES {
        let (loaded, expected) = load(case);
        let Some(chats) = expected.field("chats").as_array() else { continue };
        let chat = loaded.processor.chat().expect("a template");
        for (answer, texts, ids) in
            [(false, "chat_rendered", "chat_ids"), (true, "chat_prompt_rendered", "chat_prompt_ids")]
        {
            for ((messages, text), ids) in chats.iter().zip(expected.strings(texts)).zip(expected.rows(ids)) {
                let found = chat.render(messages, answer).expect("a chat");
                assert_eq!(found, text, "{case}");
                assert_eq!(loaded.processor.illustrated(&found, &[]).expect("ids"), ids, "{case}: {text:?}");
                rendered += 1;
            }
        }
    }
    assert!(rendered >= 24, "{rendered}");
}

#[test]
fn logits_are_transformers_own() {
    for case in CASES {
        let (loaded, expected) = load(case);
        let model = model(&loaded);
        let all = expected.values("logits");
        let vocabulary = model.vocabulary();
        let row = all.len() / expected.rows("input_ids").len();
        let most = all.iter().fold(0f32, |most, x| most.max(x.abs()));
        let (mut worst, mut worst_past) = (0f32, 0f32);
        for (prompt, logits) in prompts(&expected).iter().zip(all.chunks(row)) {
            let tokens = prompt.ids.len();
            let expected = &logits[row - tokens * vocabulary..];
            let off = |found: &Tensor| -> f32 {
                let found = found.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
                assert_eq!(found.len(), expected.len());
                found.iter().zip(expected).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
            };
            let ids =
                Tensor::new(&prompt.ids[..], &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("ids");
            let x = model.embed(&ids).expect("embeddings");
            worst = worst.max(off(&model
                .logits(&model.forward(&x, &[x.dim(1).expect("tokens")]).expect("hidden"))
                .expect("logits")));
            // Three tokens first, then one after the other.
            let mut cache = [Cache::new(model.layers())];
            let mut parts = Vec::new();
            let mut at = 0;
            while at < tokens {
                let count = if at == 0 { 3.min(tokens) } else { 1 };
                let part = x.narrow(1, at, count).and_then(|x| x.contiguous()).expect("a part");
                parts.push(
                    model
                        .logits(&model.with_past(&part, &mut cache, count).expect("hidden"))
                        .expect("logits"),
                );
                at += count;
            }
            worst_past = worst_past.max(off(&Tensor::cat(&parts, 1).expect("rows")));
        }
        println!("| {case} | logits | {worst:.1e} |");
        println!("| {case} | logits with a cache | {worst_past:.1e} |");
        assert!(
            worst <= 1e-4 * most.max(1.0) && worst_past <= 1e-4 * most.max(1.0),
            "{case}: {worst} {worst_past} of {most}"
        );
    }
}

#[test]
fn every_block_format_of_a_gguf_file_says_what_transformers_says() {
    let mut formats = std::collections::BTreeSet::new();
    for case in ["gguf-llama", "gguf-qwen2"] {
        let path = repository("fixtures/parity").join(case).join("model.gguf");
        let folder = Folder::open(&path).expect("the file");
        let loaded = dari_models::auto::load(&folder, &Device::Cpu, Precision::F32)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.unused, Vec::<String>::new(), "{case}");
        let (model, expected) = (model(&loaded), Expected::of(case, HINT));
        formats.extend(expected.strings("formats"));
        let (ids, logits) = (expected.rows("ids").concat(), expected.values("logits"));
        let most = logits.iter().fold(0f32, |most, x| most.max(x.abs()));
        let x = Tensor::new(&ids[..], &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("ids");
        let x = model.embed(&x).expect("embeddings");
        // Many rows at once, and one after the other; activations have 16 bits either way.
        let whole = model.logits(&model.forward(&x, &[ids.len()]).expect("hidden")).expect("logits");
        let mut cache = [Cache::new(model.layers())];
        let single = (0..ids.len()).map(|at| {
            let part = x.narrow(1, at, 1).and_then(|x| x.contiguous()).expect("a part");
            model.logits(&model.with_past(&part, &mut cache, 1).expect("hidden")).expect("logits")
        });
        let single = Tensor::cat(&single.collect::<Vec<_>>(), 1).expect("rows");
        for (way, found) in [("at once", &whole), ("one by one", &single)] {
            let found = found.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values");
            let off = found.iter().zip(&logits).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
            println!("| {case} | logits {way} | {off:.1e} of {most:.1} |");
            assert!(found.len() == logits.len() && off < 5e-4 * most, "{case} {way}: {off} of {most}");
        }
        let greedy = expected.rows("greedy").concat();
        let own = say(model, &[Prompt::words(ids)], Sampling::default(), &[], greedy.len());
        assert_eq!(own[0].tokens, greedy, "{case}");
    }
    assert_eq!(formats.len(), 10, "{formats:?}");
}

/// Guesses that are right now and then.
struct Stale<'a>(Draft<'a>, usize);

impl Guess for Stale<'_> {
    fn guess(&mut self, tokens: &[u32], most: usize) -> dari_models::Result<Vec<u32>> {
        self.1 += 1;
        let mut guess = self.0.guess(tokens, most)?;
        if let Some(token) = guess.get_mut(self.1 % 3) {
            *token = (*token + 1) % 50;
        }
        Ok(guess)
    }
}

#[test]
fn guesses_change_nothing_but_the_steps() {
    let ggufs =
        ["gguf-llama", "gguf-qwen2"].map(|case| repository("fixtures/parity").join(case).join("model.gguf"));
    let folders = CASES.map(|case| repository("fixtures/parity").join(case));
    for path in folders.into_iter().chain(ggufs) {
        let folder = Folder::open(&path).expect("the model");
        let loaded = dari_models::auto::load(&folder, &Device::Cpu, Precision::F32)
            .unwrap_or_else(|error| panic!("{error}"));
        let model = model(&loaded);
        let prompt = Prompt::words((0..21u32).map(|i| 3 + i * i % 7).collect());
        for sampling in [
            Sampling::default(),
            Sampling { repetition_penalty: 1.3, ..Sampling::default() },
            Sampling { temperature: 0.8, seed: 5, ..Sampling::default() },
        ] {
            let plain = say(model, std::slice::from_ref(&prompt), sampling, &[], 40);
            let guessers: [&mut dyn Guess; 3] =
                [&mut Lookup, &mut Draft::new(model), &mut Stale(Draft::new(model), 0)];
            for (number, guess) in guessers.into_iter().enumerate() {
                let mut state = model.begin();
                let mut heard = Vec::new();
                let (said, guesses) =
                    generate_ahead(model, &mut state, &prompt, sampling, &[], 40, guess, &mut |token| {
                        heard.push(token);
                        true
                    })
                    .expect("an answer");
                // To the last bit of the probabilities.
                assert_eq!(said, plain[0], "{}: {number}, {sampling:?}", path.display());
                assert_eq!(heard, said.tokens);
                assert!(state.len() >= prompt.ids.len() + 39 && state.len() <= prompt.ids.len() + 40);
                assert!(guesses.right <= guesses.made);
                if number == 1 && sampling == Sampling::default() {
                    assert_eq!(guesses.right, guesses.made, "a model guesses itself");
                    assert!(guesses.made >= 20);
                }
            }
        }
    }
}

#[test]
fn greedy_text_is_transformers_own_alone_and_in_a_batch() {
    for case in CASES {
        let (loaded, expected) = load(case);
        let (model, ends) = (model(&loaded), &loaded.ends);
        let said: Vec<u64> = expected
            .field("eos_token_ids")
            .as_array()
            .expect("ids")
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        assert_eq!(ends.iter().map(|&id| u64::from(id)).collect::<Vec<_>>(), said, "{case}");
        let prompts = prompts(&expected);
        let greedy = expected.rows("greedy");
        for (prompt, tokens) in prompts.iter().zip(&greedy) {
            let own = say(model, std::slice::from_ref(prompt), Sampling::default(), ends, 24);
            assert_eq!(whole(&own[0], tokens, ends), *tokens, "{case}");
        }
        let together = say(model, &prompts, Sampling::default(), ends, 24);
        for (own, tokens) in together.iter().zip(&greedy) {
            assert_eq!(whole(own, tokens, ends), *tokens, "{case}, in a batch");
        }
        let penalised = Sampling { repetition_penalty: 1.3, ..Sampling::default() };
        for (own, tokens) in
            say(model, &prompts, penalised, ends, 24).iter().zip(expected.rows("greedy_penalty"))
        {
            assert_eq!(whole(own, &tokens, ends), tokens, "{case}, penalised");
        }
    }
}

#[test]
fn beams_are_transformers_own() {
    for case in CASES {
        let (loaded, expected) = load(case);
        for (name, length_penalty, early) in [
            ("beam4", 1.0, Early::No),
            ("beam4_lp", 2.0, Early::No),
            ("beam4_lp_negative", -0.5, Early::No),
            ("beam4_early", 1.0, Early::Yes),
            ("beam4_never", 1.0, Early::Never),
        ] {
            let options = BeamOptions { beams: 4, length_penalty, early, most: 16 };
            let scores = expected.values(&format!("{name}_scores"));
            for ((prompt, tokens), score) in prompts(&expected).iter().zip(expected.rows(name)).zip(scores) {
                let found = search(model(&loaded), model(&loaded).begin(), prompt, &loaded.ends, &options)
                    .expect("beams");
                assert_eq!(found[0].tokens, tokens, "{case} {name}");
                assert!(
                    (found[0].score - f64::from(score)).abs() < 1e-3,
                    "{case} {name}: {} {score}",
                    found[0].score
                );
            }
        }
    }
}

#[test]
fn what_may_be_drawn_is_what_transformers_leaves() {
    let expected = Expected::of("gpt2", HINT);
    let number = |field: &str, name: &str| expected.field(field)[name].as_f64().expect("a number") as f32;
    let one = |field: &str, name: &str| {
        let off = Sampling { temperature: 1.0, ..Sampling::default() };
        match name {
            "temperature" => Sampling { temperature: number(field, name), ..off },
            "top_k" => Sampling { top_k: number(field, name) as usize, ..off },
            "top_p" => Sampling { top_p: number(field, name), ..off },
            _ => Sampling { min_p: number(field, name), ..off },
        }
    };
    let chain = |field: &str| Sampling {
        temperature: number(field, "temperature"),
        top_k: number(field, "top_k") as usize,
        top_p: number(field, "top_p"),
        min_p: number(field, "min_p"),
        ..Sampling::default()
    };
    for (name, sampling) in [
        ("warp_temperature", one("warpers", "temperature")),
        ("warp_top_k", one("warpers", "top_k")),
        ("warp_top_p", one("warpers", "top_p")),
        ("warp_min_p", one("warpers", "min_p")),
        ("warp_chain", chain("warpers")),
        ("warp_chain_wide", chain("wide_chain")),
    ] {
        let mut scores = expected.values("warp_logits");
        sampler::warp(&mut scores, &sampling);
        for (token, (found, expected)) in scores.iter().zip(expected.values(name)).enumerate() {
            let gone = expected <= -1e29;
            assert_eq!(gone, *found == f32::NEG_INFINITY, "{name}: token {token}");
            assert!(
                gone || (found - expected).abs() < 1e-5,
                "{name}: token {token} is {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn stretched_rotary_positions_are_transformers_own() {
    let (_, expected) = load("llama");
    let path = repository("fixtures/parity/llama");
    let read = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path.join(file)).expect("a file")).expect("JSON")
    };
    let ids = expected.rows("rope_ids").concat();
    let places: Vec<usize> = expected
        .field("rope_places")
        .as_array()
        .expect("places")
        .iter()
        .map(|p| p.as_u64().expect("a place") as usize)
        .collect();
    for kind in ["none", "linear", "dynamic", "yarn", "longrope"] {
        let config = if kind == "none" { read("config.json") } else { read(&format!("rope_{kind}.json")) };
        let config = LlamaConfig::parse(&config, kind).expect("a config");
        let checkpoint = Folder::open(&path).and_then(|folder| folder.weights()).expect("weights");
        let weights = Weights::read(Box::new(checkpoint), &Device::Cpu, Precision::F32, None);
        let model = Llama::load(&weights, &config, kind).expect("a model");
        let logits = |count: usize, places: &[usize]| -> Vec<f32> {
            let x = Tensor::new(&ids[..count], &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("ids");
            let x = model.embed(&x).expect("embeddings");
            let all = model
                .logits(&model.forward(&x, &[x.dim(1).expect("tokens")]).expect("hidden"))
                .expect("logits");
            let row =
                |&place: &usize| all.get(0).and_then(|all| all.get(place)?.to_vec1::<f32>()).expect("a row");
            places.iter().flat_map(row).collect()
        };
        let check = |name: &str, found: &[f32]| {
            let off =
                found.iter().zip(expected.values(name)).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            println!("| llama | {name} | {off:.1e} |");
            assert!(off < 2e-4, "{name}: off by {off}");
        };
        check(&format!("logits_rope_{kind}"), &logits(48, &places));
        if kind == "longrope" {
            check("logits_rope_longrope_short", &logits(30, &[29]));
        }
        if kind != "none" {
            let prompt = Prompt::words(ids[..28].to_vec());
            let said = say(&model, &[prompt], Sampling::default(), &[], 12);
            assert_eq!(said[0].tokens, expected.rows(&format!("greedy_rope_{kind}")).concat(), "{kind}");
        }
    }
}

#[test]
fn a_longer_prompt_goes_on_from_what_is_held() {
    let (loaded, _) = load("llama");
    let model = model(&loaded);
    let ids: Vec<u32> = (0..90).map(|i| (i * 37 + 11) % 300).collect();
    let mut held = model.begin();
    model.prefill(&mut held, &Prompt::words(ids[..70].to_vec())).expect("logits");
    held.truncate(66);
    let rest = model.prefill(&mut held, &Prompt::words(ids.clone())).expect("logits");
    let whole = model.prefill(&mut model.begin(), &Prompt::words(ids)).expect("logits");
    assert!(rest.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn what_is_not_wanted_of_the_last_block_is_kept_all_the_same() {
    for case in CASES {
        let (loaded, _) = load(case);
        let model = model(&loaded);
        let rows =
            Tensor::arange(0u32, 2 * 30, &Device::Cpu).and_then(|ids| ids.reshape((2, 30))).expect("ids");
        let x = model.embed(&rows).expect("embeddings");
        let begin = || [model.begin(), model.begin()];
        let mut caches = begin();
        let whole = model.with_past(&x, &mut caches, 30).expect("hidden");
        for wanted in [1, 4] {
            let mut caches = begin();
            let first = x.narrow(1, 0, 20).expect("a part");
            model.with_past(&first, &mut caches, 1).expect("hidden");
            let rest = x.narrow(1, 20, 10).expect("a part");
            let hidden = model.with_past(&rest, &mut caches, wanted).expect("hidden");
            assert_eq!(hidden.dims(), [2, wanted, model.width()], "{case}");
            let off =
                whole.narrow(1, 30 - wanted, wanted).and_then(|whole| whole - hidden).expect("of one shape");
            let off = off.abs().and_then(|x| x.flatten_all()?.max(0)?.to_scalar::<f32>()).expect("a value");
            assert!(off < 1e-4, "{case} {wanted}: {off}");
        }
        for wanted in [0, 31] {
            assert!(model.with_past(&x, &mut begin(), wanted).is_err(), "{case} {wanted}");
        }
    }
}

#[test]
fn a_cache_in_fewer_bits_is_near_and_as_steady() {
    for case in CASES {
        let (loaded, _) = load(case);
        let model = model(&loaded);
        let ids: Vec<u32> = (0..30).map(|i| (i * 37 + 11) % 300).collect();
        let read = |format: CacheFormat, pieces: usize| -> Vec<f32> {
            let mut state = model.begin().kept_in(format);
            let logits = ids.chunks(pieces).flat_map(|ids| model.read(&mut state, ids).expect("logits"));
            logits.flatten().collect()
        };
        let plain = read(CacheFormat::F32, 1);
        let most = plain.iter().fold(0f32, |most, x| most.max(x.abs()));
        for (format, near) in [(CacheFormat::F16, 1e-2), (CacheFormat::Int8, 0.2)] {
            let kept = read(format, 1);
            let far = kept.iter().zip(&plain).fold(0f32, |far, (a, b)| far.max((a - b).abs())) / most;
            assert!(far > 0.0 && far < near, "{case} {format:?}: {far}");
            assert_eq!(read(format, 7), kept, "{case} {format:?}: several tokens at once");
        }
    }
}

#[test]
fn a_full_context_is_told() {
    let (loaded, expected) = load("gpt2");
    let model = model(&loaded);
    let room = model.context();
    let mut states = [model.begin()];
    let long = [Prompt::words(vec![1; room])];
    let error =
        generate(model, &mut states, &long, Sampling::default(), &[], 4, &mut |_, _| true).expect_err("full");
    assert!(error.to_string().contains("shorten the text"), "{error}");
    let near = [Prompt::words(vec![1; room - 2])];
    let said = say(model, &near, Sampling::default(), &[], 9);
    assert_eq!((said[0].tokens.len(), said[0].ended), (2, dari_models::generate::Ended::Full));
    drop(expected);
}

#[test]
fn draws_follow_from_their_seed() {
    let (loaded, expected) = load("qwen2");
    let model = model(&loaded);
    let prompts = prompts(&expected);
    let sampling = |seed| Sampling { temperature: 1.5, seed, ..Sampling::default() };
    let tokens = |seed| -> Vec<Vec<u32>> {
        say(model, &prompts, sampling(seed), &[], 12).into_iter().map(|said| said.tokens).collect()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}
