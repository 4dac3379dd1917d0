//! Recipes, optimizers, schedules, checkpoints and the loop that runs them.
