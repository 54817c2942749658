//! Work on many blocks: a few threads, a buffer of one block each, ended by the first error or a stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::store::{StoreError, blocking};
use crate::cloud::BLOCK_SIZE;
use crate::host::stop::Stop;

/// More threads than this gain nothing on one machine's disk.
const MOST: usize = 8;

/// Calls `work` once with every number below `count`, in no order, and with a buffer of one block.
pub(super) async fn for_each<F>(count: u32, stop: &Stop, work: F) -> Result<(), StoreError>
where
    F: Fn(u32, &mut [u8]) -> Result<(), StoreError> + Send + Sync + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = Arc::new(work);
    let next = Arc::new(AtomicU32::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..threads.min(MOST))
        .map(|_| {
            let (work, next, failed, stop) = (work.clone(), next.clone(), failed.clone(), stop.clone());
            tokio::spawn(blocking(move || {
                let mut buffer = vec![0; BLOCK_SIZE];
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let done = if stop.is_requested() {
                        Err(StoreError::Stopped)
                    } else {
                        work(number, &mut buffer)
                    };
                    if done.is_err() {
                        failed.store(true, Ordering::Relaxed);
                        return done;
                    }
                }
                Ok(())
            }))
        })
        .collect();
    let mut first = Ok(());
    // All are waited for: none may still be writing when this returns.
    for worker in workers {
        let ended = worker.await.unwrap_or_else(|error| Err(StoreError::Ended(error)));
        first = first.and(ended);
    }
    first
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn every_number_comes_once() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        for_each(100, &Stop::never(), move |number, buffer| {
            assert_eq!(buffer.len(), BLOCK_SIZE);
            into.lock().unwrap().push(number);
            Ok(())
        })
        .await
        .unwrap();
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_stop_and_an_error_end_it() {
        let stop = Stop::never();
        let asked = stop.clone();
        let stopped = for_each(u32::MAX, &stop, move |_, _| {
            asked.request(libc::SIGTERM);
            Ok(())
        });
        assert!(matches!(stopped.await, Err(StoreError::Stopped)));
        let never = Stop::never();
        let failed = for_each(
            u32::MAX,
            &never,
            |number, _| {
                if number == 3 { Err(StoreError::Stopped) } else { Ok(()) }
            },
        );
        assert!(failed.await.is_err());
    }
}
