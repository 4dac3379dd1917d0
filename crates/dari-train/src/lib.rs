//! Recipes, optimizers, schedules, checkpoints and the loop that runs them.
//!
//! What is trained is any model of `dari-models` that has a loss; nothing here knows a model's
//! inside. No terminal and no command line: progress goes to an [`Observer`].

pub mod batches;
pub mod checkpoint;
pub mod classification;
pub mod lessons;
pub mod optimizer;
pub mod probe;
pub mod recipe;
pub mod retrieval;
pub mod schedule;
pub mod speech;
mod start;
pub mod tensorboard;
pub mod trainer;

mod error;

pub use error::{Error, Result};
pub use recipe::Recipe;
pub use trainer::{Observer, Outcome, Parts, StepReport, time_steps, train};
