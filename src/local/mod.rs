//! A cloud in a folder.
