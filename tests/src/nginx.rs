//! nginx as the server of a backend: it answers with the backend's name and logs who asked.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{Host, Running, wait_until};

const READY: Duration = Duration::from_secs(10);

/// An nginx on a host. It answers any path with `200` and the host's role in a line, but `/large` with
/// [`Nginx::LARGE`] bytes, which are lines with the host's role.
#[derive(Debug)]
pub struct Nginx {
    host: Host,
    ports: Vec<u16>,
    folder: PathBuf,
    running: Option<Running>,
}

/// A request as the access log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Address and port that the request came from.
    pub remote: SocketAddr,
    /// Address and port that the client connected to, as the server sees it.
    pub local: SocketAddr,
    /// The status of the answer.
    pub status: u16,
    /// Path and query.
    pub target: String,
}

impl Nginx {
    /// The length of the large page.
    pub const LARGE: usize = 1_000_000;

    /// Starts one that listens on `ports` in both families; it accepts connections when this returns.
    pub fn start(host: &Host, ports: &[u16]) -> Result<Self> {
        let folder = host.belongings().unique_path(host.role(), "-nginx");
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut nginx = Self { host: host.clone(), ports: ports.to_vec(), folder, running: None };
        let large: String = format!("{}\n", host.role()).chars().cycle().take(Self::LARGE).collect();
        fs::write(nginx.folder.join("large"), large)
            .with_context(|| format!("writing into {}", nginx.folder.display()))?;
        let config = nginx.folder.join("nginx.conf");
        fs::write(&config, nginx.config()).with_context(|| format!("writing {}", config.display()))?;
        nginx.start_again()?;
        Ok(nginx)
    }

    /// Ends it at once, with its connections.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| running.kill())
    }

    /// Starts it after [`Nginx::stop`], with the same ports and log.
    pub fn start_again(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("nginx in {} is running already", self.host.namespace());
        }
        let [config, log] =
            ["nginx.conf", "error.log"].map(|name| self.folder.join(name).to_string_lossy().into_owned());
        // `-e`: what it has to say before it has read the config.
        let running = self.host.spawn(["nginx", "-c", &config, "-e", &log])?;
        let address = |ip: IpAddr| self.ports.iter().map(move |port| SocketAddr::new(ip, *port));
        let mut closed: Vec<_> =
            address(Ipv4Addr::LOCALHOST.into()).chain(address(Ipv6Addr::LOCALHOST.into())).collect();
        let what = format!("nginx in {} accepted connections", self.host.namespace());
        self.host.inside(|| {
            wait_until(READY, &what, || match running.ended() {
                Ok(None) => {
                    closed.retain(|address| TcpStream::connect(address).is_err());
                    closed.is_empty().then_some(Ok(()))
                }
                Ok(Some(status)) => {
                    let said = fs::read_to_string(&log).unwrap_or_default();
                    Some(Err(anyhow::anyhow!("{running} ended ({status}): {said}")))
                }
                Err(error) => Some(Err(error)),
            })?
        })??;
        self.running = Some(running);
        Ok(())
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The requests that it has logged so far, all its starts together.
    ///
    /// A line is written after its answer has been sent: see [`served_in_total`].
    pub fn served(&self) -> Result<Vec<Served>> {
        let path = self.folder.join("access.log");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // What follows the last line's end is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(served).collect()
    }

    fn config(&self) -> String {
        let folder = self.folder.display();
        let listen: String =
            self.ports.iter().map(|port| format!("listen {port}; listen [::]:{port} ipv6only=on; ")).collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|use_of| format!("{use_of}_temp_path {folder}/{use_of}; "))
            .collect();
        // One process, so that its handle is all there is to end. Idle connections stay open for
        // tests of draining.
        format!(
            r#"
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
worker_rlimit_nofile 16384;
http {{
    default_type text/plain;
    log_format lab "$remote_addr $remote_port $server_addr $server_port $status $request_uri";
    access_log {folder}/access.log lab;
    {temporary}
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    server {{
        {listen}
        location = /large {{ root {folder}; }}
        location / {{ return 200 "{role}\n"; }}
    }}
}}
"#,
            role = self.host.role()
        )
    }
}

/// What each of `servers` has served, once that is at least `total` requests together.
pub fn served_in_total<'a>(servers: impl IntoIterator<Item = &'a Nginx>, total: usize) -> Result<Vec<Vec<Served>>> {
    let servers: Vec<_> = servers.into_iter().collect();
    wait_until(READY, &format!("{total} requests were in the access logs"), || {
        let served: Result<Vec<_>> = servers.iter().map(|server| server.served()).collect();
        match served {
            Ok(served) => (served.iter().map(Vec::len).sum::<usize>() >= total).then_some(Ok(served)),
            Err(error) => Some(Err(error)),
        }
    })?
}

fn served(line: &str) -> Result<Served> {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    let [remote, remote_port, local, local_port, status, target] = words.as_slice() else {
        bail!("the access log has a line that is none of ours: {line:?}");
    };
    let address = |ip: &str, port: &str| -> Result<SocketAddr> { Ok(SocketAddr::new(ip.parse()?, port.parse()?)) };
    let parse = || -> Result<Served> {
        Ok(Served {
            remote: address(remote, remote_port)?,
            local: address(local, local_port)?,
            status: status.parse()?,
            target: (*target).to_owned(),
        })
    };
    parse().with_context(|| format!("reading the line {line:?} of the access log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_request() {
        assert_eq!(
            served("fd77::10 40000 fd77::200 80 200 /?1").unwrap(),
            Served {
                remote: "[fd77::10]:40000".parse().unwrap(),
                local: "[fd77::200]:80".parse().unwrap(),
                status: 200,
                target: "/?1".into()
            }
        );
        assert!(served("fd77::10 40000").is_err());
    }
}
