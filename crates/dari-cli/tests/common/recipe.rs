//! Recipes of models so small that a step takes milliseconds.

use std::path::PathBuf;

use super::Home;

/// A recipe's text: `data` are its sources, `train` further lines of `[train]`.
pub fn recipe(data: &str, train: &str) -> String {
    format!(
        r#"
seed = 7
output = "run"

[model.config]
model_type = "clip"
architectures = ["CLIPModel"]
projection_dim = 16
logit_scale_init_value = 2.6592

[model.config.vision_config]
model_type = "clip_vision_model"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_channels = 3
image_size = 16
patch_size = 8
projection_dim = 16
hidden_act = "quick_gelu"
layer_norm_eps = 1e-5

[model.config.text_config]
model_type = "clip_text_model"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 16
projection_dim = 16
hidden_act = "quick_gelu"
layer_norm_eps = 1e-5

[model.preprocessor]
image_processor_type = "CLIPImageProcessor"
do_convert_rgb = true
do_resize = true
size = {{ height = 16, width = 16 }}
resample = 3
do_center_crop = false
crop_size = {{ height = 16, width = 16 }}
do_rescale = true
rescale_factor = 0.00392156862745098
do_normalize = true
image_mean = [0.5, 0.5, 0.5]
image_std = [0.5, 0.5, 0.5]

[model.tokenizer]
vocabulary = 320
scene_captions = 50

{data}

[train]
batch = 4
{train}
"#
    )
}

/// Writes `recipe.toml` that learns from scenes.
pub fn scenes(home: &Home, train: &str) -> PathBuf {
    home.write("recipe.toml", recipe("[[data]]\nscenes = 1", train))
}

/// Writes `recipe.toml` that learns from a folder beside it.
pub fn folder(home: &Home, folder: &str, train: &str) -> PathBuf {
    let data = format!("[[data]]\npath = \"{folder}\"");
    home.write("recipe.toml", recipe(&data, train))
}
