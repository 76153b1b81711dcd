//! What systemd is told of the agent by datagrams to `NOTIFY_SOCKET`, as sd_notify(3) describes them. Without systemd
//! nothing is said.
//!
//! The keep-alive of the watchdog is sent by the agent's own loop and by nothing else: a loop that hangs is restarted.

use nix::time::{ClockId, clock_gettime};
use std::{
    env,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    time::Duration,
};

/// How often the loop comes by at least, with a watchdog or without.
const BEAT: Duration = Duration::from_secs(1);

/// Who has started the agent.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Without a sign for this long the agent is taken for hung.
    watchdog: Option<Duration>,
    /// The line that it was told last.
    status: String,
}

impl Supervisor {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let variable = |name| env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref());
        let socket = variable("NOTIFY_SOCKET").and_then(|path| {
            let opened = address(&path).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            // What is not told in time costs a restart; a full queue would cost the loop's own time.
            let opened = opened.and_then(|(socket, address)| {
                socket.set_nonblocking(true)?;
                Ok((socket, address))
            });
            opened.inspect_err(|error| tracing::warn!(path, %error, "cannot speak to NOTIFY_SOCKET")).ok()
        });
        Self { socket, watchdog, status: String::new() }
    }

    /// How often the loop is to come by.
    pub fn beat(&self) -> Duration {
        // Two signs in its time, as sd_watchdog_enabled(3) recommends.
        self.watchdog.map_or(BEAT, |watchdog| BEAT.min(watchdog / 2)).max(Duration::from_millis(1))
    }

    /// The data path is attached, or a reload has ended.
    pub fn ready(&mut self, status: String) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(&status)));
        self.status = status;
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The agent ends by wish.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopped; the data path stays up");
    }

    /// The loop has come by. The line is told if it is another one.
    pub fn alive(&mut self, status: String) {
        let mut message = String::new();
        if self.watchdog.is_some() {
            message.push_str("WATCHDOG=1\n");
        }
        if status != self.status {
            message += &format!("STATUS={}\n", one_line(&status));
            self.status = status;
        }
        if !message.is_empty() {
            self.send(message.trim_end());
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, "systemd was not told");
        }
    }
}

/// A path, or behind an `@` a name in the abstract namespace.
fn address(path: &str) -> std::io::Result<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

/// The watchdog's time, if there is one and it is meant for this process.
fn watchdog(microseconds: Option<&str>, process: Option<&str>) -> Option<Duration> {
    let microseconds = microseconds?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    let ours = process.is_none_or(|process| process.parse() == Ok(process::id()));
    ours.then_some(Duration::from_micros(microseconds))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(watchdog: Option<Duration>) -> (UnixDatagram, Supervisor) {
        let name = format!("lb-supervisor-{}-{:?}", process::id(), std::thread::current().id());
        let listener = UnixDatagram::bind_addr(&address(&format!("@{name}")).unwrap()).unwrap();
        listener.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let socket = Some((UnixDatagram::unbound().unwrap(), address(&format!("@{name}")).unwrap()));
        (listener, Supervisor { socket, watchdog, status: String::new() })
    }

    fn said(listener: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 512];
        let length = listener.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[test]
    fn a_life_is_told_in_order() {
        let (listener, mut supervisor) = listening(Some(Duration::from_secs(3)));
        supervisor.ready("two\nlines".into());
        assert_eq!(said(&listener).unwrap(), "READY=1\nSTATUS=two lines");
        supervisor.alive("two\nlines".into());
        assert_eq!(said(&listener).unwrap(), "WATCHDOG=1");
        supervisor.alive("other".into());
        assert_eq!(said(&listener).unwrap(), "WATCHDOG=1\nSTATUS=other");
        supervisor.reloading();
        let reloading = said(&listener).unwrap();
        let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(stamp.parse::<u64>().unwrap() > 0, "{reloading}");
        supervisor.stopping();
        assert!(said(&listener).unwrap().starts_with("STOPPING=1\nSTATUS="));
    }

    #[test]
    fn without_a_watchdog_only_news_are_told() {
        let (listener, mut supervisor) = listening(None);
        supervisor.alive("one".into());
        assert_eq!(said(&listener).unwrap(), "STATUS=one");
        supervisor.alive("one".into());
        assert_eq!(said(&listener), None);
    }

    #[test]
    fn nobody_is_told_anything_without_systemd() {
        let mut supervisor = Supervisor { socket: None, watchdog: None, status: String::new() };
        supervisor.ready("one".into());
        supervisor.alive("two".into());
    }

    #[test]
    fn the_watchdog_is_for_one_process_and_gets_two_signs_in_its_time() {
        let own = process::id().to_string();
        assert_eq!(watchdog(Some("3000000"), Some(&own)), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(Some("3000000"), None), Some(Duration::from_secs(3)));
        for (microseconds, process) in
            [(None, None), (Some("0"), None), (Some("x"), None), (Some("3000000"), Some("1"))]
        {
            assert_eq!(watchdog(microseconds, process), None);
        }
        let beat = |watchdog| listening(watchdog).1.beat();
        assert_eq!(beat(None), BEAT);
        assert_eq!(beat(Some(Duration::from_secs(30))), BEAT);
        assert_eq!(beat(Some(Duration::from_millis(400))), Duration::from_millis(200));
    }
}
