//! The rotary positions that a `config.json` describes, in its older and newer forms.

use dari_nn::rotary::{Pairs, Rotary, Scaling};
use serde_json::Value;

use crate::{Result, config};

/// Our own key beside a checkpoint's: whether neighbours make a pair, as in llama.cpp's LLaMA files.
pub(crate) const NEIGHBOURS: &str = "rotary_neighbours";

/// Reads `rope_theta` with `rope_scaling`, or `rope_parameters`; `width` is a head's, `context` the
/// most tokens that the model was made for.
pub(super) fn rotary(all: &Value, width: usize, context: usize, origin: &str) -> Result<Rotary> {
    if !width.is_multiple_of(2) {
        return config::refuse(origin, format!("`head_dim` is {width}, expected an even number"));
    }
    let given = |key: &str| all.get(key).filter(|value| value.is_object());
    let said = given("rope_scaling").or_else(|| given("rope_parameters"));
    let number = |key: &str| said.and_then(|said| said.get(key)).and_then(Value::as_f64);
    let root = |key: &str| all.get(key).and_then(Value::as_f64);
    let base = number("rope_theta").or_else(|| root("rope_theta")).unwrap_or(10_000.0);
    if !(base > 1.0 && base.is_finite()) {
        return config::refuse(origin, format!("`rope_theta` is {base}, expected a number above 1"));
    }
    let name = |key: &str| said.and_then(|said| said.get(key)).and_then(Value::as_str);
    let kind = name("rope_type").or_else(|| name("type")).unwrap_or("default");
    let original = root("original_max_position_embeddings")
        .or_else(|| number("original_max_position_embeddings"))
        .unwrap_or(context as f64);
    let factor = number("factor").unwrap_or(context as f64 / original);
    let positive = |value: f64| value > 0.0 && value.is_finite();
    if !positive(factor) || !positive(original) {
        return config::refuse(
            origin,
            format!(
                "rotary positions stretched by {factor} over {original} tokens, expected positive numbers"
            ),
        );
    }
    let mut attention = number("attention_factor");
    let scaling = match kind {
        "default" | "mrope" => Scaling::None,
        "linear" => Scaling::Linear { factor },
        "dynamic" => Scaling::Dynamic { factor, original: context as f64 },
        "llama3" => {
            let (low, high) =
                (number("low_freq_factor").unwrap_or(1.0), number("high_freq_factor").unwrap_or(4.0));
            if low >= high {
                return config::refuse(
                    origin,
                    format!("`low_freq_factor` {low} is not below `high_freq_factor` {high}"),
                );
            }
            Scaling::Llama3 { factor, low, high, original }
        }
        "yarn" => {
            let nonzero = |key: &str| number(key).filter(|&value| value != 0.0);
            let growth = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
            attention = attention.or(match (nonzero("mscale"), nonzero("mscale_all_dim")) {
                (Some(one), Some(all)) => Some(growth(one) / growth(all)),
                _ => Some(growth(1.0)),
            });
            let truncate =
                said.and_then(|said| said.get("truncate")).and_then(Value::as_bool).unwrap_or(true);
            Scaling::Yarn {
                factor,
                original,
                fast: nonzero("beta_fast").unwrap_or(32.0),
                slow: nonzero("beta_slow").unwrap_or(1.0),
                truncate,
            }
        }
        "longrope" | "su" => {
            let list = |key: &str| -> Result<Vec<f64>> {
                let list = said.and_then(|said| said.get(key)).and_then(Value::as_array);
                let list: Vec<f64> = list.into_iter().flatten().filter_map(Value::as_f64).collect();
                if list.len() != width / 2 || !list.iter().all(|&divisor| positive(divisor)) {
                    return config::refuse(
                        origin,
                        format!("`{key}` has {} numbers, expected {} positive ones", list.len(), width / 2),
                    );
                }
                Ok(list)
            };
            if attention.is_none() && factor > 1.0 {
                attention = Some((1.0 + factor.ln() / original.ln()).sqrt());
            }
            Scaling::Long { short: list("short_factor")?, long: list("long_factor")?, original }
        }
        other => {
            return config::refuse(
                origin,
                format!(
                    "rotary positions of type `{other}`; known are default, linear, dynamic, llama3, yarn, longrope"
                ),
            );
        }
    };
    let pairs = match all.get(NEIGHBOURS).and_then(Value::as_bool) {
        Some(true) => Pairs::Neighbours,
        _ => Pairs::Halves,
    };
    Ok(Rotary::new(base, width, pairs, scaling, attention.unwrap_or(1.0)))
}
