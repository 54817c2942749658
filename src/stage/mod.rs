//! What every stage answers: it is done, or it waits and gives a token with which any later process goes on. Knows no
//! stage by name, and nothing of what a stage needs.

mod token;

use std::time::Duration;

pub use token::{Claims, StageToken, TokenError};

use crate::host::stop::Stop;

/// What one look of a stage came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    Done(T),
    Wait(Wait),
}

/// Nothing more to do for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// All that the next process needs besides the record.
    pub token: StageToken,
    /// When the next look is worth it.
    pub after: Duration,
    /// How far it is, 0 to 99.
    pub percent: u8,
}

/// Looks until it is done, and tells of every wait, whose percentage never falls. `None`: a stop was asked for, which is
/// seen between two looks and never breaks one off.
///
/// # Errors
/// `look`'s first.
pub async fn until_done<T, E>(
    stop: &Stop,
    mut look: impl AsyncFnMut() -> Result<Answer<T>, E>,
    mut tell: impl FnMut(&Wait),
) -> Result<Option<T>, E> {
    let mut furthest = 0;
    while !stop.is_requested() {
        let mut wait = match look().await? {
            Answer::Done(done) => return Ok(Some(done)),
            Answer::Wait(wait) => wait,
        };
        furthest = wait.percent.clamp(furthest, 99);
        wait.percent = furthest;
        tell(&wait);
        tokio::select! {
            () = tokio::time::sleep(wait.after) => {}
            () = stop.requested() => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(percent: u8) -> Answer<&'static str> {
        let token = StageToken::of(&token::tests::claims("x")).unwrap();
        Answer::Wait(Wait { token, after: Duration::from_secs(1000), percent })
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_told_and_never_fall_back() {
        let mut answers = vec![Answer::Done("done"), wait(200), wait(30), wait(40), wait(0)];
        let mut told = Vec::new();
        let done = until_done(
            &Stop::never(),
            async || Ok::<_, ()>(answers.pop().unwrap()),
            |wait| told.push(wait.percent),
        )
        .await;
        assert_eq!((done, told), (Ok(Some("done")), vec![0, 40, 40, 99]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_or_a_stop_ends_the_wait() {
        let stop = Stop::never();
        let mut looks = 0;
        let done = until_done(
            &stop,
            async || {
                looks += 1;
                Ok::<_, ()>(wait(1))
            },
            |_| stop.request(libc::SIGTERM),
        )
        .await;
        assert_eq!((done, looks), (Ok(None), 1));
        let done = until_done::<(), _>(&Stop::never(), async || Err("no"), |_| ()).await;
        assert_eq!(done, Err("no"));
    }
}
