//! Encoders, bridges, language models, and the three roads that join them.
