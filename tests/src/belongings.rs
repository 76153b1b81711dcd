//! What one lab has made, so that it can be taken away whichever way the lab ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, bail};

use crate::{
    leftovers::{self, KEPT},
    process::Running,
};

static SERIAL: AtomicU32 = AtomicU32::new(0);
/// The labs of this process that a signal must remove.
static LIVING: Mutex<Vec<Arc<Belongings>>> = Mutex::new(Vec::new());
/// Held while a lab is made: a signal must not remove half of it and miss the rest.
static MAKING: Mutex<()> = Mutex::new(());

/// The names and children of one lab. Whatever it makes bears its prefix, `lb-<pid>-<serial>`.
#[derive(Debug)]
pub(crate) struct Belongings {
    prefix: String,
    /// `None` once the lab is being removed: nothing can be started any more.
    children: Mutex<Option<Vec<Running>>>,
    numbers: AtomicU32,
    kept: AtomicBool,
}

impl Belongings {
    /// Takes the next prefix of this process and makes the two folders.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let belongings = Arc::new(Self {
            prefix: format!("lb-{}-{serial}", process::id()),
            children: Mutex::new(Some(Vec::new())),
            numbers: AtomicU32::new(0),
            kept: AtomicBool::new(false),
        });
        // Process ids come round again: an earlier process may have used the same.
        leftovers::remove(&belongings.prefix)?;
        lock(&LIVING).push(Arc::clone(&belongings));
        for folder in [belongings.folder(), belongings.bpf_folder()] {
            fs::create_dir(&folder)
                .with_context(|| format!("making the folder {}", folder.display()))
                .inspect_err(|_| belongings.remove())?;
        }
        Ok(belongings)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The folder for configs, logs and sockets.
    pub(crate) fn folder(&self) -> PathBuf {
        folder(&self.prefix)
    }

    /// The folder in bpffs.
    pub(crate) fn bpf_folder(&self) -> PathBuf {
        bpf_folder(&self.prefix)
    }

    /// The socket of the agent. Not deeper than this: the kernel takes 107 bytes of path.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("agent.sock")
    }

    /// Where the agent pins its links and maps; it makes this folder itself.
    pub(crate) fn pins(&self) -> PathBuf {
        self.bpf_folder().join("pins")
    }

    pub(crate) fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// A path in the folder that nothing else in this lab is given: `<stem>-<number><ending>`.
    pub(crate) fn unique_path(&self, stem: &str, ending: &str) -> PathBuf {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.folder().join(format!("{stem}-{number}{ending}"))
    }

    /// Starts a child that dies with the lab.
    pub(crate) fn spawn(&self, command: Command, what: String, log: PathBuf) -> Result<Running> {
        let mut children = lock(&self.children);
        let Some(children) = children.as_mut() else { bail!("starting {what}: the lab is gone") };
        let child = Running::start(command, what, log)?;
        children.push(child.clone());
        Ok(child)
    }

    /// Lets everything outlive this process, and later labs too.
    pub(crate) fn keep(&self) -> Result<()> {
        let mark = self.folder().join(KEPT);
        fs::write(&mark, "").with_context(|| format!("writing {}", mark.display()))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes everything away, unless it is kept. May be called more than once.
    pub(crate) fn remove(&self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        for child in lock(&self.children).take().into_iter().flatten() {
            complain(child.kill());
        }
        complain(leftovers::remove(&self.prefix));
        lock(&LIVING).retain(|other| other.prefix != self.prefix);
    }
}

/// Waits until no other lab is being made and keeps it so while the guard lives.
pub(crate) fn making() -> MutexGuard<'static, ()> {
    lock(&MAKING)
}

/// Removes all labs of this process; none can be made while the returned guard lives.
pub(crate) fn remove_all() -> MutexGuard<'static, ()> {
    let guard = making();
    // A copy, since each of them takes itself out of the list.
    let living = lock(&LIVING).clone();
    for belongings in living {
        belongings.remove();
    }
    guard
}

/// The folder in the temporary folder that belongs to `prefix`.
pub(crate) fn folder(prefix: &str) -> PathBuf {
    env::temp_dir().join(prefix)
}

/// The folder in bpffs that belongs to `prefix`.
pub(crate) fn bpf_folder(prefix: &str) -> PathBuf {
    Path::new(leftovers::BPF_FS).join(prefix)
}

/// The lock, whatever became of its last holder: what it guards stays whole when a test panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removal goes on after an error, and in `drop` there is nobody to return it to.
fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("removing a lab: {error:#}");
    }
}
