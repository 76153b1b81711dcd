//! Waiting for an event with a deadline: the only sleep of the tests.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Polls until `poll` gives a value; fails after `deadline` with `what` was awaited.
///
/// The pause between two polls grows from 1 ms, for what is nearly there, to 50 ms, so that waiting
/// for a slow start does not take the CPU away from it.
pub fn wait_until<T>(deadline: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = poll() {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            bail!("waited {deadline:?} in vain until {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_of_the_first_success() {
        let mut polls = 0;
        let value = wait_until(Duration::from_secs(5), "three polls were made", || {
            polls += 1;
            (polls == 3).then_some(polls)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn says_what_was_awaited() {
        let error = wait_until(Duration::ZERO, "pigs fly", || None::<()>).unwrap_err().to_string();
        assert!(error.ends_with("until pigs fly"), "{error}");
    }
}
