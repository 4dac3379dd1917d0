//! The joint of pixels and tokens: one piece of code for inference and for training batches.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use dari_data::image::{ImageProcessor, Picture, Pixels, TileProcessor};
use dari_data::text::{ChatTemplate, TextProcessor, Words};
use serde_json::{Value, json};

use crate::capability::Tokens;
use crate::{Error, Result};

/// What a checkpoint's own files say of preparing pictures and texts.
pub struct Processor {
    model: String,
    image: Option<ImageProcessor>,
    text: Option<TextProcessor>,
    words: Option<Words>,
    chat: Option<ChatTemplate>,
    sights: Option<Sights>,
}

/// How a picture stands in a text.
pub struct Sights {
    /// What a template writes for a picture.
    pub token: String,
    /// Tokens that a piece becomes.
    pub queries: usize,
    /// How pictures are cut, where they are.
    pub tiles: Option<TileProcessor>,
    /// Whether a chat's messages are plain texts with the token in them, not lists of parts.
    pub is_inline: bool,
}

impl Sights {
    /// Tokens that a picture of this height and width costs, those around it not counted.
    pub fn cost(&self, height: u32, width: u32) -> usize {
        self.tiles.as_ref().map_or(1, |tiles| tiles.pieces(height, width)) * self.queries
    }

    /// What stands for a picture of this height and width.
    fn text(&self, height: u32, width: u32) -> String {
        const FENCE: &str = "<fake_token_around_image>";
        let piece = self.token.repeat(self.queries);
        let Some(tiles) = &self.tiles else { return piece };
        let (rows, columns) = tiles.grid(height, width);
        let mut text = String::new();
        for row in 1..=rows {
            for column in 1..=columns {
                text += &format!("{FENCE}<row_{row}_col_{column}>{piece}");
            }
            text.push('\n');
        }
        if rows > 0 {
            text.push('\n');
        }
        text + &format!("{FENCE}<global-img>{piece}{FENCE}")
    }
}

/// Pictures made ready, those of one size together.
pub struct Pictures {
    groups: Vec<Group>,
    count: usize,
}

/// Pictures of one size.
struct Group {
    places: Vec<usize>,
    /// `[pictures, 3, height, width]`.
    pixels: Tensor,
}

/// Pictures with their places, by height and width.
type BySize = BTreeMap<(usize, usize), Vec<(usize, Vec<f32>)>>;

impl Pictures {
    /// Gathers prepared pictures; for models of one size that is one group.
    pub fn stack(pixels: Vec<Pixels>, device: &Device) -> Result<Pictures> {
        let count = pixels.len();
        let mut sizes = BySize::new();
        for (place, Pixels { values, height, width }) in pixels.into_iter().enumerate() {
            sizes.entry((height, width)).or_default().push((place, values));
        }
        let mut groups = Vec::with_capacity(sizes.len());
        for ((height, width), own) in sizes {
            let (places, all): (Vec<usize>, Vec<Vec<f32>>) = own.into_iter().unzip();
            let batch = all.len();
            let flat = match batch {
                1 => all.into_iter().next().unwrap_or_default(),
                _ => all.concat(),
            };
            groups.push(Group { places, pixels: Tensor::from_vec(flat, (batch, 3, height, width), device)? });
        }
        Ok(Pictures { groups, count })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `[pictures, 3, height, width]`, where all are of one size.
    pub fn tensor(&self) -> Option<&Tensor> {
        match &self.groups[..] {
            [all] => Some(&all.pixels),
            _ => None,
        }
    }

    /// Runs `model`, which gives a row a picture, on each size; the rows come in the pictures' order.
    pub fn each(&self, mut model: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        if let [all] = &self.groups[..] {
            return model(&all.pixels);
        }
        let mut back = vec![0u32; self.count];
        let order = self.groups.iter().flat_map(|group| &group.places);
        order.enumerate().for_each(|(row, &place)| back[place] = row as u32);
        let mut rows = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            rows.push(model(&group.pixels)?);
        }
        let rows = Tensor::cat(&rows, 0)?;
        Ok(rows.index_select(&Tensor::new(back, rows.device())?, 0)?)
    }
}

/// Texts made ready, and how many were cut to the model's length.
pub struct Prepared {
    /// The tokens.
    pub tokens: Tokens,
    /// Indices of texts that were too long and lost their end.
    pub truncated: Vec<usize>,
}

impl Processor {
    /// Joins the two halves; a model of one sense has one.
    pub fn new(model: String, image: Option<ImageProcessor>, text: Option<TextProcessor>) -> Processor {
        Processor { model, image, text, words: None, chat: None, sights: None }
    }

    /// The same with a language model's tokenizer and chat template.
    #[must_use]
    pub fn with_words(self, words: Words, chat: Option<ChatTemplate>) -> Processor {
        Processor { words: Some(words), chat, ..self }
    }

    /// The same with pictures among the words.
    #[must_use]
    pub fn with_sights(self, sights: Sights) -> Processor {
        Processor { sights: Some(sights), ..self }
    }

    /// How pictures stand among the words, where they can.
    pub fn sights(&self) -> Option<&Sights> {
        self.sights.as_ref()
    }

    /// Token ids of a rendered chat, with places for its pictures, whose heights and widths are given in order.
    pub fn illustrated(&self, text: &str, sizes: &[(u32, u32)]) -> Result<Vec<u32>> {
        let words = self.words()?;
        let Some(sights) = &self.sights else {
            return match sizes {
                [] => Ok(words.encode(text, false)?),
                _ => Err(self.blind()),
            };
        };
        let mut parts = text.split(sights.token.as_str());
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        let parts: Vec<&str> = parts.collect();
        if parts.len() != sizes.len() {
            let (places, token, given) = (parts.len(), &sights.token, sizes.len());
            return Err(Error::Unable {
                model: self.model.clone(),
                what: "read this chat",
                instead: format!(
                    "it has {places} places for pictures (`{token}`), and {given} pictures are given"
                ),
            });
        }
        for (&(height, width), rest) in sizes.iter().zip(parts) {
            expanded += &sights.text(height, width);
            expanded += rest;
        }
        Ok(words.encode_chat(&expanded)?)
    }

    /// A message of a chat, as this model's template takes it: `pictures` stand before the text.
    pub fn message(&self, role: &str, text: &str, pictures: usize) -> Value {
        match &self.sights {
            None => json!({"role": role, "content": text}),
            Some(sights) if sights.is_inline => {
                json!({"role": role, "content": format!("{}{text}", sights.token.repeat(pictures))})
            }
            Some(_) => {
                let mut parts = vec![json!({"type": "image"}); pictures];
                parts.push(json!({"type": "text", "text": text}));
                json!({"role": role, "content": parts})
            }
        }
    }

    /// The pieces of a picture among words.
    pub fn cut(&self, picture: &Picture) -> Result<Vec<Pixels>> {
        match &self.sights.as_ref().ok_or_else(|| self.blind())?.tiles {
            Some(tiles) => Ok(tiles.cut(picture)?),
            None => Ok(vec![self.image()?.process(picture)]),
        }
    }

    /// What a picture among words is to the model: `[pieces, 3, side, side]`.
    pub fn pieces(&self, picture: &Picture, device: &Device) -> Result<Tensor> {
        let pieces = Pictures::stack(self.cut(picture)?, device)?;
        pieces.tensor().cloned().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "see this picture",
            instead: "its pieces are of unequal size".into(),
        })
    }

    /// Height and width to which a picture of this height and width is brought first: what a decoder may
    /// aim at.
    pub fn wanted(&self, height: u32, width: u32) -> Result<(u32, u32)> {
        match self.sights.as_ref().and_then(|sights| sights.tiles.as_ref()) {
            Some(tiles) => Ok(tiles.resized(height, width)),
            None => Ok(self.image()?.resized(height, width)),
        }
    }

    fn blind(&self) -> Error {
        Error::Unable {
            model: self.model.clone(),
            what: "see pictures",
            instead: "take a vision-language model: LLaVA, Idefics 3 or SmolVLM".into(),
        }
    }

    /// A language model's tokenizer.
    pub fn words(&self) -> Result<&Words> {
        self.words.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "write texts",
            instead: "take a language model: GPT-2, LLaMA, Mistral or Qwen 2, as a folder or GGUF file"
                .into(),
        })
    }

    /// A language model's chat template.
    pub fn chat(&self) -> Result<&ChatTemplate> {
        self.chat.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "chat",
            instead: "it has no chat template; `dari complete` goes on with a text".into(),
        })
    }

    /// The half that prepares pictures.
    pub fn image(&self) -> Result<&ImageProcessor> {
        self.image.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "see pictures",
            instead: "its folder has no preprocessor_config.json; take a CLIP, SigLIP or ViT checkpoint"
                .into(),
        })
    }

    /// The half that prepares texts.
    pub fn text(&self) -> Result<&TextProcessor> {
        self.text.as_ref().ok_or_else(|| Error::Unable {
            model: self.model.clone(),
            what: "read texts",
            instead: "its folder has no tokenizer; take a CLIP, SigLIP or BERT checkpoint".into(),
        })
    }

    /// Pictures to tensors.
    pub fn pixels(&self, pictures: &[Picture], device: &Device) -> Result<Pictures> {
        let image = self.image()?;
        Pictures::stack(pictures.iter().map(|picture| image.process(picture)).collect(), device)
    }

    /// Texts to tokens of equal length.
    pub fn tokens(&self, texts: &[&str]) -> Result<Prepared> {
        let encoded = self.text()?.encode_batch(texts)?;
        let truncated =
            encoded.iter().enumerate().filter(|(_, text)| text.truncated).map(|(i, _)| i).collect();
        Ok(Prepared { tokens: Tokens::new(encoded), truncated })
    }
}
