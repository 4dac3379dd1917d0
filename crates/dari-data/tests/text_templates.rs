//! Thousands of damaged chat templates: a chat or one line of error, never a panic, never without an end.

use dari_data::text::ChatTemplate;
use serde_json::json;

const SEEDS: [&str; 4] = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}",
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% else %}{{ raise_exception('x') }}{% endif %}",
    "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ ns.n ~ m | tojson(indent=2) }}{%- endfor -%}",
    "{% macro f(x) %}{{ x[1:] | upper }}{% endmacro %}{% for a in range(9) %}{{ f(messages | length | string) }}{% endfor %}",
];

#[test]
fn damaged_templates_end_in_a_chat_or_an_error() {
    let asked = std::env::var("DARI_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let pieces = [
        "{%",
        "%}",
        "{{",
        "}}",
        "for",
        "in",
        "endfor",
        "|",
        "~",
        "(",
        ")",
        "[",
        "'",
        "range(99999)",
        "**",
        "//0",
        "%",
    ];
    let messages = json!([{"role": "user", "content": "가 b"}, {"role": "assistant", "content": null}]);
    let (mut told, mut refused) = (0, 0);
    for round in 0..asked.unwrap_or(3000) {
        let mut source: Vec<char> = SEEDS[round % SEEDS.len()].chars().collect();
        for _ in 0..1 + next(5) {
            let at = next(source.len());
            match next(4) {
                0 => source[at] = char::from(32 + next(95) as u8),
                1 => drop(source.drain(at..(at + 1 + next(8)).min(source.len()))),
                2 => drop(source.splice(at..at, pieces[next(pieces.len())].chars())),
                _ => {
                    let piece: Vec<char> = source[at..(at + 1 + next(20)).min(source.len())].to_vec();
                    drop(source.splice(at..at, piece));
                }
            }
            if source.is_empty() {
                break;
            }
        }
        let source: String = source.into_iter().collect();
        let special = [("bos_token", "<s>".to_owned())];
        let made = ChatTemplate::new("t".into(), source.clone(), &special);
        match made.and_then(|template| template.render(&messages, true)) {
            Ok(_) => told += 1,
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains('\n'), "{source}: {text}");
                refused += 1;
            }
        }
    }
    // Both kinds must come up, or the changes are too mild or too wild.
    assert!(told > 50 && refused > 50, "{told} {refused}");
}
