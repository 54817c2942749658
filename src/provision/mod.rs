//! The recipe's steps in a root, and the seal at the end.
