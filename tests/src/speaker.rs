//! A server that says one line to whoever connects, as an agent of HAProxy's agent-check does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::{
    Host,
    belongings::lock,
    task::{Stop, Task},
    wait_until,
};

const READY: Duration = Duration::from_secs(10);

/// One that runs on a host until it is dropped.
#[derive(Debug)]
pub struct Speaker {
    line: Arc<Mutex<String>>,
    _task: Task<()>,
}

impl Speaker {
    /// Starts one at an address of the host.
    pub fn start(host: &Host, address: SocketAddr, line: &str) -> Result<Self> {
        let open = || wait_until(READY, "an address was free", || std::net::TcpListener::bind(address).ok());
        let listener = host.inside(open)?.with_context(|| format!("starting a speaker in {}", host.namespace()))?;
        listener.set_nonblocking(true)?;
        let line = Arc::new(Mutex::new(line.to_owned()));
        let said = Arc::clone(&line);
        let work = move |mut stop: Stop| async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let line = lock(&said).clone();
                        if let Ok((mut stream, _)) = accepted {
                            let _ = stream.write_all(line.as_bytes()).await;
                        }
                    }
                    () = stop.requested() => return,
                }
            }
        };
        Ok(Self { line, _task: Task::start("speaker", work)? })
    }

    /// Says something else from now on.
    pub fn say(&self, line: &str) {
        line.clone_into(&mut lock(&self.line));
    }
}
