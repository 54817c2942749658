//! How the bytes come to be.
