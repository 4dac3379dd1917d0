//! Every shared block's gradient against finite differences, for its input and its every weight.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use dari_nn::attention::{self, Attention, Heads, Mask};
use dari_nn::block::{self, Block, Order, RmsConfig};
use dari_nn::embedding::Embedding;
use dari_nn::patch::PatchEmbedding;
use dari_nn::pool::{self, AttentionPool};
use dari_nn::random::Key;
use dari_nn::rotary::{Pairs, Rotary, Scaling};
use dari_nn::{
    Activation, Gradients, Linear, Mlp, Norm, Result, Training, Weights, activation, loss, mlp, segment,
};

fn fresh() -> Weights {
    Weights::train(None, &Device::Cpu, Training::all(11))
}

fn input(shape: &[usize], name: &str) -> Var {
    let key = Key::new(5).with(name);
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count as u64).map(|i| key.normal(i) as f32).collect();
    Var::from_vec(values, shape, &Device::Cpu).expect("an input")
}

/// A scalar that depends on every output differently.
fn scalar(y: &Tensor) -> Result<Tensor> {
    let key = Key::new(9);
    let values: Vec<f32> = (0..y.elem_count() as u64).map(|i| key.normal(i) as f32).collect();
    Ok(y.mul(&Tensor::from_vec(values, y.shape(), &Device::Cpu)?)?.sum_all()?)
}

/// Compares the gradients of all variables with central differences of `forward`.
fn check(
    name: &str,
    mut variables: Vec<(String, Var)>,
    weights: &Weights,
    forward: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    // Starting values of norms and biases (ones, zeros) hide mistakes: shake everything.
    for (name, variable) in weights.variables() {
        let key = Key::new(3).with(&name);
        let shape = variable.shape().clone();
        let values: Vec<f32> = (0..shape.elem_count() as u64).map(|i| 0.3 * key.normal(i) as f32).collect();
        let shaken = (variable.as_tensor() + Tensor::from_vec(values, &shape, &Device::Cpu)?)?;
        variable.set(&shaken)?;
        variables.push((name, variable));
    }
    assert!(!variables.is_empty());
    let gradients = Gradients::of(&scalar(&forward()?)?)?;
    for (which, variable) in variables {
        let gradient = gradients.get(variable.as_tensor())?;
        let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
        let gradient = match gradient {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>()?,
            None => panic!("{name}: `{which}` got no gradient"),
        };
        let largest = gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
        let shape = variable.shape().clone();
        for probe in (0..values.len()).step_by(values.len() / 5 + 1) {
            let h = 4e-3;
            let at = |delta: f32| -> Result<f64> {
                let mut moved = values.clone();
                moved[probe] += delta;
                variable.set(&Tensor::from_vec(moved, &shape, &Device::Cpu)?)?;
                Ok(scalar(&forward()?)?.to_scalar::<f32>()? as f64)
            };
            // Five points: the rounding of f32 asks for a wide step, the curvature for high order.
            let slope = (8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h as f64);
            variable.set(&Tensor::from_vec(values.clone(), &shape, &Device::Cpu)?)?;
            let difference = (gradient[probe] as f64 - slope).abs();
            let allowed = 4e-3 * (1.0 + slope.abs() + 0.1 * largest as f64);
            assert!(
                difference < allowed,
                "{name}, {which}[{probe}]: gradient {}, slope {slope}",
                gradient[probe]
            );
        }
    }
    Ok(())
}

#[test]
fn linear() -> Result<()> {
    let (weights, x) = (fresh(), input(&[2, 3, 5], "x"));
    let layer = Linear::load(&weights, 5, 4, true)?;
    check("linear", vec![("x".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))?;
    let weights = fresh();
    let layer = Linear::load(&weights, 5, 4, false)?;
    check("linear without bias", vec![("x".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))
}

#[test]
fn norms() -> Result<()> {
    let x = input(&[2, 3, 6], "x");
    let weights = fresh();
    let layer = Norm::layer(&weights, 6, 1e-5)?;
    check("layer norm", vec![("x".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))?;
    let weights = fresh();
    let layer = Norm::rms(&weights, 6, 1e-5)?;
    check("rms norm", vec![("x".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))
}

#[test]
fn activations() -> Result<()> {
    use Activation::{Gelu, GeluTanh, QuickGelu, Silu, Tanh};
    let x = input(&[4, 7], "x");
    for kind in [Gelu, QuickGelu, GeluTanh, Silu, Tanh] {
        check(kind.name(), vec![("x".into(), x.clone())], &fresh(), || {
            activation::apply(kind, x.as_tensor())
        })?;
    }
    Ok(())
}

#[test]
fn attention_self_cross_masked_and_fused() -> Result<()> {
    let (x, context) = (input(&[2, 4, 6], "x"), input(&[2, 5, 6], "context"));
    let keys = Tensor::from_vec(vec![1u8, 1, 0, 1, 1, 1, 0, 0], (2, 4), &Device::Cpu)?;
    for mask in [Mask::none(), Mask::causal(), Mask::keys(keys)] {
        let weights = fresh();
        let layer = Attention::load(&weights, &attention::PROJ, 6, 2, true)?;
        check("self-attention", vec![("x".into(), x.clone())], &weights, || {
            layer.forward(x.as_tensor(), &mask)
        })?;
    }
    let weights = fresh();
    let layer = Attention::load_fused(&weights, 6, 3)?;
    let inputs = vec![("x".into(), x.clone()), ("context".into(), context.clone())];
    check("cross-attention", inputs, &weights, || {
        layer.cross(x.as_tensor(), context.as_tensor(), &Mask::none())
    })
}

#[test]
fn attention_with_grouped_keys() -> Result<()> {
    let (q, k, v) = (input(&[2, 3, 8], "q"), input(&[2, 3, 4], "k"), input(&[2, 3, 4], "v"));
    let inputs = [("q", &q), ("k", &k), ("v", &v)].map(|(n, x)| (n.to_owned(), x.clone())).to_vec();
    check("grouped keys", inputs, &fresh(), || {
        attention::attend(q.as_tensor(), k.as_tensor(), v.as_tensor(), [4, 2], 0.5, &Mask::causal(), None)
    })
}

#[test]
fn perceptron_and_blocks() -> Result<()> {
    let x = input(&[2, 3, 6], "x");
    let weights = fresh();
    let layer = Mlp::load(&weights, &mlp::FC, 6, 10, Activation::Gelu, true)?;
    check("mlp", vec![("x".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))?;
    for (order, names) in [(Order::Pre, block::CLIP), (Order::Post, block::BERT), (Order::Pre, block::VIT)] {
        let weights = fresh();
        let config = block::Config {
            width: 6,
            inner: 10,
            heads: 2,
            activation: Activation::QuickGelu,
            epsilon: 1e-5,
            order,
            qkv_bias: true,
        };
        let layer = Block::load(&weights, &names, &config)?;
        check("block", vec![("x".into(), x.clone())], &weights, || {
            layer.forward(x.as_tensor(), &Mask::none())
        })?;
    }
    Ok(())
}

#[test]
fn embeddings() -> Result<()> {
    let weights = fresh();
    let layer = Embedding::load(&weights, 7, 4)?;
    let ids = Tensor::from_vec(vec![0u32, 3, 3, 6, 1, 0], (2, 3), &Device::Cpu)?;
    check("embedding", vec![], &weights, || layer.forward(&ids))?;
    let wrong = Tensor::from_vec(vec![7u32], (1, 1), &Device::Cpu)?;
    let message = layer.forward(&wrong).expect_err("a token beyond the table").to_string();
    assert!(message.contains("token 7"), "{message}");
    let (weights, x) = (fresh(), input(&[2, 3, 5, 4], "pixels"));
    let layer = PatchEmbedding::load(&weights, 3, 2, 5, true)?;
    check("patch embedding", vec![("pixels".into(), x.clone())], &weights, || layer.forward(x.as_tensor()))
}

#[test]
fn pooling_heads() -> Result<()> {
    let x = input(&[2, 4, 6], "x");
    let variables = || vec![("x".to_owned(), x.clone())];
    check("class token", variables(), &fresh(), || pool::token(x.as_tensor(), 0))?;
    check("last token", variables(), &fresh(), || pool::last(x.as_tensor()))?;
    check("mean", variables(), &fresh(), || pool::mean(x.as_tensor(), None))?;
    let mask = Tensor::from_vec(vec![1u8, 1, 0, 0, 1, 1, 1, 0], (2, 4), &Device::Cpu)?;
    check("masked mean", variables(), &fresh(), || pool::mean(x.as_tensor(), Some(&mask)))?;
    let ids = vec![vec![1, 9, 2, 2], vec![1, 5, 7, 9]];
    check("end of text", variables(), &fresh(), || {
        pool::places(x.as_tensor(), &pool::end_of_text(&ids, Some(9)))
    })?;
    let weights = fresh();
    let head = AttentionPool::load(&weights, 6, 10, 2, Activation::GeluTanh, 1e-6)?;
    check("attention pooling", variables(), &weights, || head.forward(x.as_tensor()))
}

#[test]
fn contrastive_losses() -> Result<()> {
    let (a, b) = (input(&[4, 6], "a"), input(&[4, 6], "b"));
    let (scale, bias) = (input(&[], "scale"), input(&[], "bias"));
    let mut inputs =
        [("a", &a), ("b", &b), ("scale", &scale)].map(|(n, x)| (n.to_owned(), x.clone())).to_vec();
    let unit = |x: &Var| loss::normalise(x.as_tensor());
    check("InfoNCE", inputs.clone(), &fresh(), || loss::info_nce(&unit(&a)?, &unit(&b)?, scale.as_tensor()))?;
    inputs.push(("bias".to_owned(), bias.clone()));
    check("pairwise sigmoid", inputs, &fresh(), || {
        loss::pairwise_sigmoid(&unit(&a)?, &unit(&b)?, scale.as_tensor(), bias.as_tensor())
    })
}

#[test]
fn frozen_weights_get_no_gradient() -> Result<()> {
    let weights = Weights::train(
        None,
        &Device::Cpu,
        Training { frozen: Box::new(|name| name.starts_with("frozen")), ..Training::all(1) },
    );
    let frozen = Linear::load(&weights.pp("frozen"), 4, 4, true)?;
    let trained = Linear::load(&weights.pp("trained"), 4, 4, true)?;
    let x = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
    let y = frozen.forward(&trained.forward(&x)?)?;
    let gradients = Gradients::of(&y.sqr()?.sum_all()?)?;
    let names: Vec<String> = weights.variables().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["trained.bias", "trained.weight"]);
    for (name, tensor) in weights.tensors() {
        assert_eq!(gradients.get(&tensor)?.is_some(), name.starts_with("trained"), "{name}");
    }
    // The input is no variable: the first layer keeps no gradient for it either.
    assert!(gradients.get(&x)?.is_none());
    // A frozen layer on a plain input builds no graph at all.
    assert!(!frozen.forward(&x)?.track_op());
    Ok(())
}

#[test]
fn fused_projections_train_as_one_tensor() -> Result<()> {
    let weights = fresh();
    let layer = Attention::load_fused(&weights, 4, 2)?;
    let x = input(&[1, 3, 4], "x");
    let before = layer.forward(x.as_tensor(), &Mask::none())?;
    let (_, fused) =
        weights.variables().into_iter().find(|(name, _)| name == "in_proj_weight").expect("the fused weight");
    fused.set(&(fused.as_tensor() * 2.0)?)?;
    let after = layer.forward(x.as_tensor(), &Mask::none())?;
    let moved = (before - after)?.abs()?.sum_all()?.to_scalar::<f32>()?;
    assert!(moved > 1e-3, "the parts must see the whole's new values");
    Ok(())
}

#[test]
fn a_segment_has_the_gradients_of_its_body() -> Result<()> {
    let config = block::Config {
        width: 8,
        inner: 12,
        heads: 2,
        activation: Activation::Gelu,
        epsilon: 1e-5,
        order: Order::Pre,
        qkv_bias: true,
    };
    let weights = fresh();
    let blocks = Block::load_stack(&weights, &block::CLIP, &config, 3)?;
    let x = input(&[2, 5, 8], "x");
    let gradients = |on: bool| -> Result<(f32, Vec<Vec<f32>>)> {
        let y = segment::checkpointed(on, || block::forward_stack(&blocks, x.as_tensor(), &Mask::causal()))?;
        let loss = scalar(&y)?;
        let gradients = Gradients::of(&loss)?;
        let mut all = Vec::new();
        let variables = weights.variables().into_iter().map(|(_, variable)| variable);
        for variable in variables.chain([x.clone()]) {
            let gradient = gradients.get(variable.as_tensor())?.expect("a gradient");
            all.push(gradient.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok((loss.to_scalar()?, all))
    };
    let (plain, segmented) = (gradients(false)?, gradients(true)?);
    assert_eq!(plain.0, segmented.0);
    assert_eq!(plain.1.len(), segmented.1.len());
    for (a, b) in plain.1.iter().flatten().zip(segmented.1.iter().flatten()) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
    }
    Ok(())
}

#[test]
fn a_language_models_block() -> Result<()> {
    let x = input(&[2, 5, 6], "x");
    for (pairs, window) in [(Pairs::Halves, None), (Pairs::Neighbours, Some(2))] {
        let weights = fresh();
        let heads = Heads {
            width: 6,
            heads: 4,
            kv_heads: 2,
            head_width: 4,
            qkv_bias: true,
            output_bias: false,
            window,
        };
        let config =
            RmsConfig { heads, inner: 10, activation: Activation::Silu, mlp_bias: false, epsilon: 1e-5 };
        let block = Block::load_rms(&weights, &block::LLAMA, &config)?;
        let places: Vec<usize> = (0..5).chain(0..5).collect();
        let turns = Rotary::new(100.0, 4, pairs, Scaling::None, 1.0).turns(&places, 5);
        let mask = Mask { turns: Some(Arc::new(turns)), ..Mask::causal() };
        check("language block", vec![("x".into(), x.clone())], &weights, || {
            block.forward(x.as_tensor(), &mask)
        })?;
    }
    Ok(())
}

#[test]
fn frozen_blocks_give_their_input_its_gradient_as_often_as_asked() -> Result<()> {
    let frozen = || {
        let training = Training { frozen: Box::new(|_| true), ..Training::all(7) };
        Weights::train(None, &Device::Cpu, training)
    };
    let heads = Heads {
        width: 8,
        heads: 4,
        kv_heads: 2,
        head_width: 4,
        qkv_bias: false,
        output_bias: false,
        window: None,
    };
    let rms = RmsConfig { heads, inner: 12, activation: Activation::Silu, mlp_bias: false, epsilon: 1e-5 };
    let config = |order| block::Config {
        width: 8,
        inner: 12,
        heads: 2,
        activation: Activation::Gelu,
        epsilon: 1e-5,
        order,
        qkv_bias: true,
    };
    let blocks = [
        Block::load_rms(&frozen(), &block::LLAMA, &rms)?,
        Block::load(&frozen(), &block::CLIP, &config(Order::Pre))?,
        Block::load(&frozen(), &block::BERT, &config(Order::Post))?,
    ];
    let places: Vec<usize> = (0..3).chain(0..4).collect();
    let turns = Rotary::new(100.0, 4, Pairs::Halves, Scaling::None, 1.0).turns(&places, 4);
    let x = input(&[1, 7, 8], "x");
    for (block, turns) in blocks.iter().zip([Some(Arc::new(turns)), None, None]) {
        let mask = Mask { turns, ..Mask::packed(&[3, 4]) };
        check("frozen block", vec![("x".into(), x.clone())], &frozen(), || {
            block.forward(x.as_tensor(), &mask)
        })?;
        let y = scalar(&block.forward(x.as_tensor(), &mask)?)?;
        let slopes = || -> Result<Vec<f32>> {
            let gradient = Gradients::of(&y)?.get(x.as_tensor())?.expect("a gradient");
            Ok(gradient.flatten_all()?.to_vec1()?)
        };
        assert_eq!(slopes()?, slopes()?);
    }
    Ok(())
}
