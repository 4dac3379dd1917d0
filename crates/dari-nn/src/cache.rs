//! What a language model keeps of the tokens it has read: each layer's keys and values.

use std::sync::Arc;

use dari_kernels::Matrix;
pub use dari_kernels::attention::CacheFormat;
use dari_kernels::attention::{self as kernel, Kept};

/// Tokens of a page.
const PAGE: usize = 64;

/// One sequence's keys and values, in pages: it grows without moving what is there, and a copy shares
/// all pages until one of the two writes.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<Vec<Arc<Page>>>,
    format: CacheFormat,
    tokens: usize,
}

#[derive(Clone, Debug)]
struct Page {
    keys: Kept,
    values: Kept,
}

impl Cache {
    /// Nothing of so many layers.
    pub fn new(layers: usize) -> Cache {
        Cache { layers: vec![Vec::new(); layers], format: CacheFormat::F32, tokens: 0 }
    }

    /// Nothing of as many layers, whose numbers will be kept so.
    pub fn kept_in(self, format: CacheFormat) -> Cache {
        Cache { layers: vec![Vec::new(); self.layers.len()], format, tokens: 0 }
    }

    /// How its numbers are kept.
    pub fn format(&self) -> CacheFormat {
        self.format
    }

    /// Tokens that are kept.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Bytes that a token takes in all layers; `None` before any was kept.
    pub fn bytes_a_token(&self) -> Option<usize> {
        let page = |pages: &Vec<Arc<Page>>| {
            pages.first().map(|page| page.keys.row_bytes() + page.values.row_bytes())
        };
        self.layers.iter().map(page).sum()
    }

    /// Forgets all but the first `tokens`.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        for pages in &mut self.layers {
            pages.truncate(self.tokens.div_ceil(PAGE));
        }
    }

    /// Adds keys and values of a layer, rows of some heads of `width`, behind the tokens that are kept.
    pub(crate) fn append(&mut self, layer: usize, keys: Matrix, values: Matrix, width: usize) {
        let ([tokens, row], format) = (keys.size(), self.format);
        let pages = &mut self.layers[layer];
        let mut done = 0;
        while done < tokens {
            let (number, within) = ((self.tokens + done) / PAGE, (self.tokens + done) % PAGE);
            if number == pages.len() {
                let empty = || Kept::new(format, PAGE, row, width);
                pages.push(Arc::new(Page { keys: empty(), values: empty() }));
            }
            let page = Arc::make_mut(&mut pages[number]);
            let count = (tokens - done).min(PAGE - within);
            for (kept, new) in [(&mut page.keys, keys), (&mut page.values, values)] {
                kept.truncate(within);
                kept.append(new.rows(done, count));
            }
            done += count;
        }
    }

    /// Counts tokens that every layer has added.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// A layer's pages, as the kernel takes them: those of the first `tokens`.
    pub(crate) fn pages(&self, layer: usize, tokens: usize) -> (Vec<kernel::Page<'_>>, usize) {
        let pages = self.layers[layer].iter().take(tokens.div_ceil(PAGE));
        (pages.map(|page| kernel::Page { keys: &page.keys, values: &page.values }).collect(), PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cache: &Cache, tokens: usize) -> Vec<f32> {
        let mut keys = Vec::new();
        for (number, page) in cache.pages(0, tokens).0.iter().enumerate() {
            let (count, mut scratch) = (PAGE.min(tokens - number * PAGE), Vec::new());
            let rows = page.keys.head(count, 0, &mut scratch);
            keys.extend((0..count).flat_map(|row| rows.row(row).to_vec()));
        }
        keys
    }

    #[test]
    fn a_token_takes_what_its_format_needs() {
        for (format, bytes) in [(CacheFormat::F32, 192), (CacheFormat::F16, 96), (CacheFormat::Int8, 64)] {
            let mut cache = Cache::new(2).kept_in(format);
            assert_eq!(cache.bytes_a_token(), None);
            for layer in 0..2 {
                cache.append(layer, Matrix::new(&[1.0; 36], 3, 12), Matrix::new(&[1.0; 36], 3, 12), 12);
            }
            assert_eq!(cache.bytes_a_token(), Some(bytes), "{format:?}");
        }
    }

    #[test]
    fn copies_share_pages_until_one_writes() {
        let mut first = Cache::new(1);
        let rows: Vec<f32> = (0..2 * 100).map(|i| i as f32).collect();
        let all = Matrix::new(&rows, 100, 2);
        first.append(0, all, all, 2);
        first.advance(100);
        let mut second = first.clone();
        second.truncate(70);
        second.append(0, Matrix::new(&[-1.0, -2.0], 1, 2), Matrix::new(&[0.0, 0.0], 1, 2), 2);
        second.advance(1);
        assert_eq!((first.len(), second.len()), (100, 71));
        assert_eq!(keys(&first, 100), rows);
        assert_eq!(keys(&second, 71)[138..], [138.0, 139.0, -1.0, -2.0]);
        assert!(Arc::ptr_eq(&first.layers[0][0], &second.layers[0][0]));
        assert!(!Arc::ptr_eq(&first.layers[0][1], &second.layers[0][1]));
    }
}
