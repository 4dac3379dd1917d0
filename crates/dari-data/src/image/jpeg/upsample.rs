//! Rows of subsampled components brought to full width and height (libjpeg's jdsample.c).
//!
//! "Fancy" upsampling is the triangle filter: an output sample takes 3/4 of the nearer input sample and
//! 1/4 of the further one, in each direction that is doubled. Its rounding alternates, as in libjpeg.

/// How a component's rows become output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// They are output rows already.
    Same,
    /// Triangle filter across.
    H2V1,
    /// Triangle filter down.
    H1V2,
    /// Triangle filter both ways.
    H2V2,
    /// Each sample repeated.
    Repeat,
}

impl Method {
    /// libjpeg's choice for a component that is `width` samples wide, of which each stands for `across` x
    /// `down` pixels, where a full-resolution block gives `block` samples a side.
    pub(super) fn choose(across: usize, down: usize, width: usize, block: usize) -> Method {
        let fancy = block > 1;
        match (across, down) {
            (1, 1) => Method::Same,
            (2, 1) if fancy && width > 2 => Method::H2V1,
            (1, 2) if fancy => Method::H1V2,
            (2, 2) if fancy && width > 2 => Method::H2V2,
            _ => Method::Repeat,
        }
    }

    /// Whether it reads the row next to the nearest one, too.
    pub(super) fn two_rows(self) -> bool {
        matches!(self, Method::H1V2 | Method::H2V2)
    }
}

/// Triangle filter across; `input` is at least 2 long, `out` twice as long.
pub(super) fn h2v1(input: &[u8], out: &mut [u8]) {
    let inner = input.iter().zip(input.iter().skip(1)).zip(input.iter().skip(2));
    let (Some(edges), Some(body)) = (ends(input), out.get_mut(2..)) else { return };
    for (pair, ((&before, &this), &after)) in body.as_chunks_mut::<2>().0.iter_mut().zip(inner) {
        let this = u16::from(this) * 3;
        *pair = [((this + u16::from(before) + 1) >> 2) as u8, ((this + u16::from(after) + 2) >> 2) as u8];
    }
    let [first, second, before_last, last] = edges;
    let last_pair = [((u16::from(last) * 3 + u16::from(before_last) + 1) >> 2) as u8, last];
    set_ends(
        out,
        input.len(),
        [first, ((u16::from(first) * 3 + u16::from(second) + 2) >> 2) as u8],
        last_pair,
    );
}

/// Triangle filter down, for the output row nearer to `near` on the side of `far`; `upper` tells if `far`
/// is above.
pub(super) fn h1v2(near: &[u8], far: &[u8], upper: bool, out: &mut [u8]) {
    let bias = if upper { 1 } else { 2 };
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((u16::from(near) * 3 + u16::from(far) + bias) >> 2) as u8;
    }
}

/// Triangle filter both ways, for the output row nearer to `near` on the side of `far`. `sums` is as long
/// as they, at least 2; `out` is twice as long.
pub(super) fn h2v2(near: &[u8], far: &[u8], sums: &mut [u16], out: &mut [u8]) {
    for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
        *sum = u16::from(near) * 3 + u16::from(far);
    }
    let sums = &*sums;
    let inner = sums.iter().zip(sums.iter().skip(1)).zip(sums.iter().skip(2));
    let (Some(edges), Some(body)) = (ends(sums), out.get_mut(2..)) else { return };
    for (pair, ((&before, &this), &after)) in body.as_chunks_mut::<2>().0.iter_mut().zip(inner) {
        *pair = [((this * 3 + before + 8) >> 4) as u8, ((this * 3 + after + 7) >> 4) as u8];
    }
    let [first, second, before_last, last] = edges;
    let first_pair = [((first * 4 + 8) >> 4) as u8, ((first * 3 + second + 7) >> 4) as u8];
    let last_pair = [((last * 3 + before_last + 8) >> 4) as u8, ((last * 4 + 7) >> 4) as u8];
    set_ends(out, sums.len(), first_pair, last_pair);
}

/// The first two and the last two of a row.
fn ends<T: Copy>(row: &[T]) -> Option<[T; 4]> {
    let (&[first, second], &[before_last, last]) = (row.first_chunk::<2>()?, row.last_chunk::<2>()?);
    Some([first, second, before_last, last])
}

/// Sets the first pair and that of input sample `samples` - 1.
fn set_ends(out: &mut [u8], samples: usize, first: [u8; 2], last: [u8; 2]) {
    let pairs = out.as_chunks_mut::<2>().0;
    if let Some(place) = samples.checked_sub(1).and_then(|at| pairs.get_mut(at)) {
        *place = last;
    }
    if let Some(place) = pairs.first_mut() {
        *place = first;
    }
}

/// Each sample `across` times.
pub(super) fn repeat(input: &[u8], across: usize, out: &mut [u8]) {
    match across {
        1 => out.iter_mut().zip(input).for_each(|(out, &sample)| *out = sample),
        2 => out.as_chunks_mut::<2>().0.iter_mut().zip(input).for_each(|(out, &s)| *out = [s, s]),
        _ => {
            for (out, &sample) in out.chunks_mut(across.max(1)).zip(input) {
                out.fill(sample);
            }
        }
    }
}
