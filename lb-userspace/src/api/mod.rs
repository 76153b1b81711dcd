//! The agent's HTTP API on its Unix socket. Handlers translate a request to a command and its reply to a response.

pub mod client;
mod message;
mod refusal;
mod routes;
mod tcp;
pub mod trial;

pub use message::{
    BackendChange, ChangeList, ChangeStatus, ConfigText, Diff, Done, Export, FoundStatus, HealthQuery, Interfaces,
    NameRequest, StaleStatus,
};
pub use refusal::{Kind, Refusal};
pub use routes::PREFIX;
pub use tcp::{Credentials, InUse, Tcp, TcpError};

use crate::{
    changes::edit::Edit,
    model::{
        explain::{Ask, Explanation},
        trace::TraceRequest,
    },
    status::{AnswerDetail, AnswerList, HealthReport, ServiceStatus, Status, TopName},
};
use anyhow::{Context as _, Result, bail};
use nix::sys::stat::{Mode, umask};
use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};
use trial::{AttachRequest, Attached, TrialStatus};

/// Where a command's reply goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the agent can be asked.
#[derive(Debug)]
pub enum Command {
    /// What is the state of everything?
    Status(Reply<Status>),
    /// What is the state of one service?
    Service {
        /// Its name.
        name: String,
        /// Its state.
        reply: Reply<ServiceStatus>,
    },
    /// What do the health checks say?
    Health {
        /// Of what: a service, a DNS name, an address; default of everything.
        of: Option<String>,
        /// What they say.
        reply: Reply<HealthReport>,
    },
    /// Edit the config's document and take it up.
    Change(Edit, Reply<Done>),
    /// Which edits are there?
    Changes(Reply<ChangeList>),
    /// Take an edit back, or all of them.
    DropChanges(Option<u64>, Reply<Done>),
    /// What is the config with all edits?
    Export {
        /// With the secrets that are written in it.
        with_secret: bool,
        /// The config.
        reply: Reply<Export>,
    },
    /// What would another config change?
    Diff(String, Reply<Diff>),
    /// Read the config's file again, or install this text in its place.
    Apply(Option<String>, Reply<Done>),
    /// What does the path do with a packet?
    Explain(Box<Ask>, Reply<Explanation>),
    /// Tell what becomes of frames from now on, a line in JSON for each sample.
    Trace(Box<TraceRequest>, Reply<mpsc::Receiver<String>>),
    /// Attach to all interfaces of the config, and see that frames pass.
    Attach(AttachRequest, Reply<Attached>),
    /// How is the trial going that attaching began?
    Trial(Reply<TrialStatus>),
    /// It works; says on how many interfaces.
    Confirm(Reply<usize>),
    /// Detach from all interfaces; says how many.
    Detach(Reply<usize>),
    /// Which answers does the kernel hold?
    CacheList(Reply<AnswerList>),
    /// What does it hold of a name?
    CacheShow {
        /// The name.
        name: String,
        /// What it holds.
        reply: Reply<Vec<AnswerDetail>>,
    },
    /// Have it hold nothing of a name, or have that written anew; says how many answers that were.
    CacheFlush {
        /// The name.
        name: String,
        /// Done.
        reply: Reply<usize>,
    },
    /// Which names is the kernel asked for most?
    Top(Reply<Vec<TopName>>),
}

/// Opens the socket, for the owner and the group alone.
pub async fn bind(path: &Path) -> Result<UnixListener> {
    let place = || format!("cannot open the agent's socket {}", path.display());
    if UnixStream::connect(path).await.is_ok() {
        bail!(
            "another agent answers at {}: stop it, or give this one another `socket` and other `pins`",
            path.display()
        );
    }
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(place);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(place)?;
    }
    let before = umask(Mode::from_bits_truncate(0o117));
    let listener = UnixListener::bind(path).with_context(place);
    umask(before);
    listener
}

/// Removes the socket of an agent that stops.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(socket = %path.display(), %error, "the socket is left behind");
    }
}

/// Answers requests until the agent stops.
pub async fn serve(listener: UnixListener, tcp: Option<Tcp>, commands: mpsc::Sender<Command>) {
    let router = routes::router(commands);
    let over_tcp = async {
        match tcp {
            Some(tcp) => tcp.serve(router.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = async { axum::serve(listener, router.clone()).await } => {
            if let Err(error) = served {
                tracing::error!(%error, "the API stopped");
            }
        }
        () = over_tcp => (),
    }
}
