//! From a language model to text: prefill, steps, choosing tokens, beams.

pub mod beam;
pub mod decoder;
pub mod sampler;

pub use beam::{Beam, BeamOptions, Early, search};
pub use decoder::{Decoder, Ended, Prompt, Said, generate, room};
pub use sampler::{Sampler, Sampling};
