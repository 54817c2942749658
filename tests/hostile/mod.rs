//! Roots, disks and files that are made to do harm: nothing of the host is touched, nothing is waited for, and what
//! cannot be done is an error that says why.

mod command;
mod disk;
mod files;
mod root;
