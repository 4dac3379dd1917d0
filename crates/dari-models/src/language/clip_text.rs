//! CLIP's text tower (Radford et al. 2021; `CLIPTextModel` of transformers).

use candle_core::Tensor;
use dari_nn::attention::{Mask, Places};
use dari_nn::{Weights, pool};
use serde::Deserialize;

use super::text_tower::TextTower;
use crate::Result;
use crate::capability::Tokens;
use crate::config::sizes;

/// `text_config` of a `clip` checkpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the checkpoint's own field names
pub struct ClipTextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub eos_token_id: Option<u32>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        ClipTextConfig {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: Some(49407),
        }
    }
}

/// The tower, looking back only, and the vector at the end of the text.
pub struct ClipText {
    tower: TextTower,
    end: Option<u32>,
}

impl ClipText {
    /// Reads the tower below `text_model`.
    pub fn load(weights: &Weights, config: &ClipTextConfig, origin: &str) -> Result<ClipText> {
        let (vocabulary, positions) = (config.vocab_size, config.max_position_embeddings);
        Ok(ClipText {
            tower: TextTower::load(weights, &sizes!(config, origin), vocabulary, positions)?,
            // 2 is what the first published configs say by mistake; the largest id is meant.
            end: config.eos_token_id.filter(|&id| id != 2),
        })
    }

    /// Every token behind the last norm, `[batch, tokens, width]`.
    pub fn forward(&self, tokens: &Tokens) -> Result<Tensor> {
        // No padding mask: padding stands behind the end of the text, and nothing looks ahead.
        self.tower.forward(tokens, &Mask::causal())
    }

    /// One vector a text, `[batch, width]`: the token at its end.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        let places = pool::end_of_text(&tokens.ids, self.end);
        // What stands behind a text's end is never looked at: texts of like length go together.
        let groups = groups(&places);
        let mut parts = Vec::with_capacity(groups.len());
        for group in &groups {
            let places: Vec<usize> = group.iter().map(|&text| places[text]).collect();
            let longest = places.iter().max().map_or(0, |place| place + 1);
            let texts = tokens.pick(group).cut(longest);
            parts.push(self.tower.forward_at(&texts, &Mask::causal(), &Places::each(places))?);
        }
        if let [all] = &parts[..] {
            return Ok(all.clone());
        }
        let mut back = vec![0u32; places.len()];
        for (row, &text) in groups.iter().flatten().enumerate() {
            back[text] = row as u32;
        }
        let all = Tensor::cat(&parts, 0)?;
        Ok(all.index_select(&Tensor::new(back, all.device())?, 0)?)
    }
}

/// Texts in groups whose ends lie not far apart. A text of like length more costs less than
/// another run of the tower.
fn groups(places: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&text| places[text]);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for text in order {
        match groups.last_mut() {
            Some(group) if group.len() < 4 || places[text] <= places[group[0]] * 5 / 4 + 1 => {
                group.push(text)
            }
            _ => groups.push(vec![text]),
        }
    }
    match &groups[..] {
        // In the order given, where one group holds all.
        [_] | [] => vec![(0..places.len()).collect()],
        _ => groups,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_like_length_go_together() {
        assert_eq!(groups(&[]), [Vec::<usize>::new()]);
        assert_eq!(groups(&[9, 3, 9]), [[0, 1, 2]]);
        assert_eq!(groups(&[30, 5, 5, 6, 30, 5]), [vec![1, 2, 5, 3], vec![0, 4]]);
    }
}
