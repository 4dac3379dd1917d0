//! From a language model to text: prefill, steps, choosing tokens, beams.

pub mod ahead;
pub mod beam;
pub mod decoder;
pub mod sampler;

pub use ahead::{Draft, Guess, Guesses, Lookup, generate_ahead};
pub use beam::{Beam, BeamOptions, Early, search};
pub use decoder::{Decoder, Ended, Prompt, Said, generate, room};
pub use sampler::{Sampler, Sampling};
