//! Work that goes on beside a test until it is told to stop: a thread with a runtime of its own.

use std::{
    future::Future,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use tokio::{runtime, sync::watch};

/// Tells work that it is to stop. Clones are told as well.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until the work is to stop: it is told so, or nobody is left who could.
    pub(crate) async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// A thread that does asynchronous work. Dropping it stops the work and waits for its end.
#[derive(Debug)]
pub(crate) struct Task<T> {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work`, whose last value is that of the task.
    pub(crate) fn start<W, F>(name: &str, work: W) -> Result<Self>
    where
        W: FnOnce(Stop) -> F + Send + 'static,
        F: Future<Output = T>,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(work(Stop(stopped))))
            .with_context(|| format!("starting a thread for {name}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops the work and gives what it came to.
    pub(crate) fn finish(self) -> Result<T> {
        self.stop.send_replace(true);
        self.wait()
    }

    /// Waits until the work ends by itself, and gives what it came to.
    pub(crate) fn wait(mut self) -> Result<T> {
        let thread = self.thread.take().context("the work has been stopped before")?;
        thread.join().map_err(|_| anyhow!("the work panicked"))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // What a panic had to say has been said by its thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_until_it_is_told_to_stop() {
        let task = Task::start("some work", |mut stop| async move {
            stop.requested().await;
            7
        });
        assert_eq!(task.unwrap().finish().unwrap(), 7);
    }
}
