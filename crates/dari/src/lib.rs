//! The library: load a model, ask it for what it can do.
