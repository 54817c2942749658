//! Everything that touches the machine and is neither a disk nor a cloud: processes, signals, locks, the clock, loop
//! devices, files that are whole.
//! Knows nothing of images; never prints.

pub mod clock;
pub mod error;
pub mod exec;
pub mod file;
pub mod glob;
pub mod holders;
pub mod kernel_log;
pub mod lock;
pub mod loop_device;
pub mod namespace;
pub mod root_dir;
pub mod stop;
pub mod survivors;
pub mod threads;
pub mod tree;
pub mod unfinished;
