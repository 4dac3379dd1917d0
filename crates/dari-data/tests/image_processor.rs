//! Preprocessing against the `…ImageProcessorPil` classes of transformers 5 and open_clip 3.

mod image_common;

use dari_data::image::ImageProcessor;
use image_common::{crc, formula, json};
use serde_json::{Value, json};

#[test]
fn every_float_is_the_references() {
    let mut wrong = Vec::new();
    let (mut configs, mut tensors, mut exact, mut largest) = (0, 0, 0, 0f64);
    for case in json("processors.json") {
        let config = &case["config"];
        let processor = ImageProcessor::from_config(config).unwrap_or_else(|e| panic!("{config}: {e}"));
        configs += 1;
        for row in case["rows"].as_array().expect("rows") {
            let n = |at: usize| row[at].as_u64().expect("a number");
            let out = processor.process(&formula(n(0) as u32, n(1) as u32, n(2))).values;
            let (height, width) = processor.size();
            assert_eq!(json!([3, height, width]), row[3], "{config}");
            assert_eq!(out.len(), 3 * height * width);
            tensors += 1;
            let bytes = out.iter().flat_map(|value| value.to_le_bytes());
            exact += usize::from(u64::from(crc(bytes)) == n(4));
            for (k, expected) in row[5].as_array().expect("samples").iter().enumerate() {
                // numpy's linspace(0, size - 1, 4), cut to whole numbers.
                let at = (k as f64 * ((out.len() - 1) as f64 / 3.0)) as usize;
                let at = if k == 3 { out.len() - 1 } else { at };
                let expected = expected.as_f64().expect("a float");
                largest = largest.max((f64::from(out[at]) - expected).abs());
            }
            if u64::from(crc(out.iter().flat_map(|value| value.to_le_bytes()))) != n(4) {
                wrong.push(format!("{config} {}x{}", n(0), n(1)));
            }
        }
    }
    assert!(configs > 40 && tensors > 500, "{configs} {tensors}");
    assert!(
        wrong.is_empty() && largest <= 1e-6,
        "{} of {tensors} tensors differ ({exact} equal, samples by {largest}): {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
}

#[test]
fn the_written_configuration_says_what_transformers_writes() {
    for case in json("processors.json") {
        let config = &case["config"];
        let processor = ImageProcessor::from_config(config).expect("a known configuration");
        let written = processor.to_config();
        if let Some(theirs) = case["written"].as_object() {
            for (field, value) in theirs {
                assert_eq!(&written[field], value, "{field} of {config}");
            }
        }
        let again = ImageProcessor::from_config(&written).expect("what we wrote");
        assert_eq!(again.to_config(), written);
        assert_eq!(again.size(), processor.size());
        let picture = formula(61, 47, 3);
        assert_eq!(again.process(&picture).values, processor.process(&picture).values);
    }
}

#[test]
fn the_nested_layout_is_read() {
    let flat = json!({"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 48}});
    let nested = json!({"image_processor": flat, "processor_class": "SiglipProcessor"});
    let processor = ImageProcessor::from_config(&nested).expect("nested");
    assert_eq!(processor.size(), (32, 48));
    let fast = json!({"image_processor_type": "CLIPImageProcessorFast"});
    assert_eq!(ImageProcessor::from_config(&fast).expect("fast").size(), (224, 224));
    let bare = json!({"size": 224, "do_resize": true});
    assert!(ImageProcessor::from_config(&bare).is_err());
    let vit = ImageProcessor::from_config_as(&bare, "ViTImageProcessor").expect("a ViT");
    assert_eq!(vit.size(), (224, 224));
}

#[test]
fn the_tower_of_open_clip_has_the_last_word_on_size() {
    let config = |vision: Value| json!({"model_cfg": {"embed_dim": 512, "vision_cfg": vision}, "preprocess_cfg": {"size": 99}});
    let size = |vision| ImageProcessor::from_config(&config(vision)).expect("a config").size();
    assert_eq!(size(json!({"image_size": 256})), (256, 256));
    assert_eq!(size(json!({"image_size": [32, 64]})), (32, 64));
    assert_eq!(size(json!({"layers": 12})), (224, 224));
    let alone = json!({"preprocess_cfg": {"size": 99}});
    assert_eq!(ImageProcessor::from_config(&alone).expect("a config").size(), (99, 99));
}

#[test]
fn what_is_not_followed_is_refused_by_name() {
    let clip = |field: &str, value: Value| {
        let mut config = json!({"image_processor_type": "CLIPImageProcessor"});
        config[field] = value;
        config
    };
    let mut cases = vec![
        (clip("do_sharpen", json!(true)), "do_sharpen"),
        (clip("reducing_gap", json!(2.0)), "reducing_gap"),
        (clip("auto_map", json!({"AutoImageProcessor": "x.Y"})), "auto_map"),
        (clip("resample", json!(6)), "resample"),
        (clip("resample", json!("bicubic")), "resample"),
        (clip("do_resize", json!("yes")), "do_resize"),
        (clip("do_resize", json!(1)), "do_resize"),
        (clip("image_std", json!([0.2, 0.0, 0.2])), "image_std"),
        (clip("image_mean", json!([0.5, 0.5])), "image_mean"),
        (clip("image_mean", json!([0.5, "x", 0.5])), "image_mean"),
        (clip("image_mean", json!([1e300, 0, 0])), "image_mean"),
        (clip("rescale_factor", json!(-1)), "rescale_factor"),
        (clip("rescale_factor", json!("NaN")), "rescale_factor"),
        (clip("do_center_crop", json!(false)), "size"),
        (clip("do_pad", json!(true)), "do_pad"),
        (clip("data_format", json!("channels_last")), "data_format"),
        (clip("size", json!({"min_pixels": 1, "max_pixels": 9})), "size"),
        (clip("size", json!([224])), "size"),
        (clip("use_square_size", json!(true)), "use_square_size"),
        (clip("crop_size", json!({"shortest_edge": 3})), "crop_size"),
        (clip("num_channels", json!(4)), "num_channels"),
        (json!({"image_processor_type": "Idefics3ImageProcessor"}), "Idefics3ImageProcessor"),
        (json!({"image_processor_type": 3}), "image_processor_type"),
        (json!({"image_processor": []}), "image_processor"),
        (json!([]), "configuration"),
        (json!(null), "configuration"),
        (json!({"preprocess_cfg": {"size": 224, "blur": 3}}), "blur"),
        (json!({"preprocess_cfg": {"mode": "L"}}), "mode"),
        (json!({"preprocess_cfg": {"interpolation": "nearest"}}), "interpolation"),
        (json!({"preprocess_cfg": {"resize_mode": "fill"}}), "resize_mode"),
        (json!({"preprocess_cfg": {"fill_color": 256}}), "fill_color"),
        (json!({"preprocess_cfg": {"std": 0}}), "std"),
    ];
    for size in [json!(0), json!(-1), json!(1e9), json!(224.5), json!("NaN"), json!(4097)] {
        cases.push((clip("size", size.clone()), "size"));
        cases.push((clip("crop_size", size.clone()), "crop_size"));
        cases.push((clip("size", json!({"height": size, "width": 5})), "size.height"));
        cases.push((json!({"preprocess_cfg": {"size": size}}), "size"));
    }
    for (config, name) in cases {
        let error = ImageProcessor::from_config(&config).expect_err(&config.to_string());
        let text = error.to_string();
        assert!(text.contains(name) && !text.contains('\n'), "{config}: {text}");
    }
    // Null and false ask for nothing.
    for value in [json!(null), json!(false)] {
        ImageProcessor::from_config(&clip("do_image_splitting", value)).expect("inert");
    }
}

#[test]
fn extreme_shapes_take_little_memory() {
    // Resized whole, this would be 224 x 14,679,840 pixels.
    let line = formula(65_535, 1, 1);
    let config = json!({"image_processor_type": "CLIPImageProcessor"});
    let out = ImageProcessor::from_config(&config).expect("CLIP").process(&line).values;
    assert_eq!(out.len(), 3 * 224 * 224);
}
