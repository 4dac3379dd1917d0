//! Pictures and words as the models want them: decoding, resizing, tokens, data sets.
