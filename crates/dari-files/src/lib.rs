//! What lies on disk: checkpoints, model folders, the hub. Bytes and headers only.
