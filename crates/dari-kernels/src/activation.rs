//! The field's activations, forward and backward.

use crate::gemm::{Matrix, multiply};
use crate::level::leveled;
use crate::math;
use crate::team;

/// An elementwise activation, by the names that `config.json` files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)` with the exact error function (`gelu`).
    Gelu,
    /// `x σ(1.702 x)` (`quick_gelu`, OpenAI's CLIP).
    QuickGelu,
    /// The tanh form (`gelu_pytorch_tanh`, `gelu_new`).
    GeluTanh,
    /// `x σ(x)` (`silu`, `swish`).
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
}

/// Elements that one task takes: large enough to pay for the hand-over.
const CHUNK: usize = 1 << 15;

impl Activation {
    /// The activation of that name, in any of the spellings of public configs.
    pub fn from_name(name: &str) -> Option<Activation> {
        Some(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_tanh" => Activation::GeluTanh,
            "silu" | "swish" => Activation::Silu,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            _ => return None,
        })
    }

    /// The name that a public config gives it.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Silu => "silu",
            Activation::Relu => "relu",
            Activation::Tanh => "tanh",
        }
    }

    /// `f(x)`, in memory that is not cleared first.
    pub fn of(self, x: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(x.len());
        let room = &mut out.spare_capacity_mut()[..x.len()];
        team::chunks(room, CHUNK, |index, room| {
            self.in_place(room.write_copy_of_slice(&x[index * CHUNK..][..room.len()]));
        });
        // SAFETY: the chunks cover the room, and each was written whole.
        unsafe { out.set_len(x.len()) };
        out
    }

    /// `f(gate) * up`, of one size, row after row, in memory that is not cleared first.
    pub fn gated(self, gate: Matrix, up: Matrix) -> Vec<f32> {
        let [rows, columns] = gate.size();
        assert_eq!(gate.size(), up.size());
        let mut out = Vec::with_capacity(rows * columns);
        let room = &mut out.spare_capacity_mut()[..rows * columns];
        team::chunks(room, CHUNK, |index, mut room| {
            let mut at = index * CHUNK;
            while !room.is_empty() {
                let (row, column) = (at / columns, at % columns);
                let own = column..columns.min(column + room.len());
                let (now, later) = room.split_at_mut(own.len());
                let out = now.write_copy_of_slice(&gate.row(row)[own.clone()]);
                self.in_place(out);
                multiply(out, &up.row(row)[own.clone()]);
                (at, room) = (at + own.len(), later);
            }
        });
        // SAFETY: the chunks cover the room, and each was written whole.
        unsafe { out.set_len(rows * columns) };
        out
    }

    /// `x = f(x)`, on one thread.
    pub fn in_place(self, x: &mut [f32]) {
        match self {
            Activation::Gelu => gelu(x),
            Activation::QuickGelu => quick_gelu(x),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::Silu => silu(x),
            Activation::Relu => relu(x),
            Activation::Tanh => tanh(x),
        }
    }

    /// `f'(x) dy`, in memory that is not cleared first.
    pub fn slopes(self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), dy.len());
        let mut out = Vec::with_capacity(x.len());
        let room = &mut out.spare_capacity_mut()[..x.len()];
        team::chunks(room, CHUNK, |index, room| {
            let part = index * CHUNK..index * CHUNK + room.len();
            let (x, dx) = (&x[part.clone()], room.write_copy_of_slice(&dy[part]));
            self.times_slopes(x, dx);
        });
        // SAFETY: the chunks cover the room, and each was written whole.
        unsafe { out.set_len(x.len()) };
        out
    }

    /// The gradient of [`Activation::gated`] for rows of a gate and, behind it, of what it multiplies,
    /// `[rows, 2 * inner]`, from `dy`, `[rows, inner]`.
    pub fn gated_slopes(self, both: &[f32], inner: usize, dy: &[f32]) -> Vec<f32> {
        assert_eq!(both.len(), 2 * dy.len());
        let mut out = Vec::with_capacity(both.len());
        let room = &mut out.spare_capacity_mut()[..both.len()];
        let rows = (CHUNK / (2 * inner).max(1)).max(1);
        team::chunks(room, 2 * inner * rows, |index, room| {
            let first = index * rows;
            for (row, room) in room.chunks_exact_mut(2 * inner).enumerate() {
                let dy = &dy[(first + row) * inner..][..inner];
                let (gate, up) = both[(first + row) * 2 * inner..][..2 * inner].split_at(inner);
                let (dgate, dup) = room.split_at_mut(inner);
                let dgate = dgate.write_copy_of_slice(dy);
                multiply(dgate, up);
                self.times_slopes(gate, dgate);
                let dup = dup.write_copy_of_slice(gate);
                self.in_place(dup);
                multiply(dup, dy);
            }
        });
        // SAFETY: the rows cover the room, and each was written whole.
        unsafe { out.set_len(both.len()) };
        out
    }

    /// `dx *= f'(x)`, on one thread.
    fn times_slopes(self, x: &[f32], dx: &mut [f32]) {
        match self {
            Activation::Gelu => gelu_slopes(x, dx),
            Activation::QuickGelu => quick_gelu_slopes(x, dx),
            Activation::GeluTanh => gelu_tanh_slopes(x, dx),
            Activation::Silu => silu_slopes(x, dx),
            Activation::Relu => relu_slopes(x, dx),
            Activation::Tanh => tanh_slopes(x, dx),
        }
    }
}

/// One activation's pair of loops from its value and its derivative at one element.
macro_rules! pair {
    ($forward:ident, $slopes:ident, $value:expr, $slope:expr) => {
        leveled! {
            fn $forward(x: &mut [f32]) {
                for x in x {
                    *x = ($value)(*x);
                }
            }
        }
        leveled! {
            fn $slopes(x: &[f32], dx: &mut [f32]) {
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx *= ($slope)(x);
                }
            }
        }
    };
}

const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// `1 / sqrt(2 pi)`.
const NORMAL: f32 = 0.398_942_3;
/// `sqrt(2 / pi)` and the cubic term of the tanh form.
const TANH_SCALE: f32 = 0.797_884_6;
const TANH_CUBE: f32 = 0.044_715;
const QUICK: f32 = 1.702;

pair!(gelu, gelu_slopes, |x: f32| 0.5 * x * (1.0 + math::erf(x * SQRT_HALF)), |x: f32| 0.5
    * (1.0 + math::erf(x * SQRT_HALF))
    + x * NORMAL * math::exp(-0.5 * x * x));
pair!(quick_gelu, quick_gelu_slopes, |x: f32| x * math::sigmoid(QUICK * x), |x: f32| {
    let s = math::sigmoid(QUICK * x);
    s + QUICK * x * s * (1.0 - s)
});
pair!(
    gelu_tanh,
    gelu_tanh_slopes,
    |x: f32| 0.5 * x * (1.0 + math::tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x))),
    |x: f32| {
        let t = math::tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x));
        let slope = TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x);
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
    }
);
pair!(silu, silu_slopes, |x: f32| x * math::sigmoid(x), |x: f32| {
    let s = math::sigmoid(x);
    s + x * s * (1.0 - s)
});
pair!(
    relu,
    relu_slopes,
    // Written so that a NaN stays a NaN.
    |x: f32| if x < 0.0 { 0.0 } else { x },
    |x: f32| if x > 0.0 { 1.0 } else { 0.0 }
);
pair!(tanh, tanh_slopes, math::tanh, |x: f32| {
    let t = math::tanh(x);
    1.0 - t * t
});

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 6] = [
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Relu,
        Activation::Tanh,
    ];

    fn reference(kind: Activation, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match kind {
            // Φ by its own integral, trapezoids fine enough for f32.
            Activation::Gelu => {
                let steps = 4000;
                let h = x / steps as f64;
                let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let inner: f64 = (1..steps).map(|i| density(i as f64 * h)).sum();
                x * (0.5 + h * (0.5 * (density(0.0) + density(x)) + inner))
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            Activation::Silu => x * sigmoid(x),
            Activation::Relu => x.max(0.0),
            Activation::Tanh => x.tanh(),
        }
    }

    #[test]
    fn values_and_slopes_follow_the_reference() {
        let x: Vec<f32> = (-120..=120).map(|i| i as f32 * 0.05 + 0.003).collect();
        let ones = vec![1.0f32; x.len()];
        for kind in ALL {
            let y = kind.of(&x);
            let dx = kind.slopes(&x, &ones);
            for i in 0..x.len() {
                let at = x[i] as f64;
                let value = reference(kind, at);
                let slope = (reference(kind, at + 1e-5) - reference(kind, at - 1e-5)) / 2e-5;
                assert!((y[i] as f64 - value).abs() < 2e-6, "{kind:?}({at}) = {} not {value}", y[i]);
                assert!((dx[i] as f64 - slope).abs() < 5e-5, "{kind:?}'({at}) = {} not {slope}", dx[i]);
            }
        }
    }

    #[test]
    fn a_gate_has_the_slopes_of_its_parts() {
        let (rows, inner) = (5, 37);
        let wave =
            |count: usize, by: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * by).sin() * 3.0).collect() };
        let (both, dy) = (wave(rows * 2 * inner, 0.37), wave(rows * inner, 0.11));
        for kind in ALL {
            let found = kind.gated_slopes(&both, inner, &dy);
            for row in 0..rows {
                let (gate, up) = both[row * 2 * inner..][..2 * inner].split_at(inner);
                let dy = &dy[row * inner..][..inner];
                let through: Vec<f32> = dy.iter().zip(up).map(|(dy, up)| dy * up).collect();
                let mixed: Vec<f32> = dy.iter().zip(kind.of(gate)).map(|(dy, gate)| dy * gate).collect();
                assert_eq!(found[row * 2 * inner..][..inner], kind.slopes(gate, &through), "{kind:?}");
                assert_eq!(found[row * 2 * inner + inner..][..inner], mixed, "{kind:?}");
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        for kind in ALL {
            assert!(kind.of(&[f32::NAN])[0].is_nan(), "{kind:?}");
        }
    }
}
