//! Who may probe now: a bounded number at once, and who does not answer does not keep the others waiting.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Places for probes. Targets whose last probe hung until its timeout have places of their own, so that a thousand of them
/// delay each other and nobody else.
#[derive(Debug)]
pub struct Places {
    quick: Semaphore,
    hanging: Semaphore,
}

impl Places {
    /// So many of each kind.
    pub fn new(each: usize) -> Self {
        Self { quick: Semaphore::new(each), hanging: Semaphore::new(each) }
    }

    /// Waits for one; none comes when the agent ends.
    pub async fn take(&self, hangs: bool) -> Option<SemaphorePermit<'_>> {
        let places = if hangs { &self.hanging } else { &self.quick };
        places.acquire().await.ok()
    }
}
