//! Memory for blocks, which the kernel has given before a run begins: a new page costs it as much as copying two, and EBS
//! pays that elsewhere.

use std::sync::Mutex;

use crate::endpoint::BLOCK_SIZE;

#[derive(Default)]
pub struct Memory(Mutex<Vec<Vec<u8>>>);

impl Memory {
    /// Enough for so many blocks.
    pub fn of(blocks: usize) -> Self {
        // Not zeros: those the kernel would give when they are written to.
        Self(Mutex::new((0..blocks).map(|_| vec![1; BLOCK_SIZE]).collect()))
    }

    /// An empty one that takes so many bytes.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        let free = (bytes == BLOCK_SIZE).then(|| self.0.lock().ok()?.pop()).flatten();
        free.map_or_else(
            || Vec::with_capacity(bytes),
            |mut free| {
                free.clear();
                free
            },
        )
    }

    pub fn give(&self, data: Vec<u8>) {
        if let Ok(mut free) = self.0.lock() {
            free.push(data);
        }
    }
}
