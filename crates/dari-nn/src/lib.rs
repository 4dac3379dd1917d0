//! Layers over candle tensors, each with its gradient.
