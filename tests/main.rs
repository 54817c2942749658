//! All integration tests, as one binary: one link instead of one per file.
