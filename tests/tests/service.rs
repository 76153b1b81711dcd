//! The agent as a service of systemd: what it says of its life, the watchdog, the unit, and what it may do.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use nix::sys::signal::Signal;
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use support::{TURN, has_program, head, lab, services};
use tests::{Agent, Lab, Layout, lb_binary, needs_program, needs_root};

/// Shorter than any watchdog of an operator, longer than a busy machine pauses.
const WATCHDOG: Duration = Duration::from_millis(1_200);

/// What systemd would listen on.
struct Notified {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notified {
    fn listen(lab: &Lab) -> Self {
        let path = lab.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path }
    }

    /// The next message, if one comes in time.
    fn within(&self, limit: Duration) -> Option<String> {
        let mut buffer = [0; 4_096];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message that is about more than being alive.
    fn next(&self) -> String {
        let end = Instant::now() + TURN;
        loop {
            let message = self.within(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            let message = message.expect("systemd is told something");
            if !message.starts_with("WATCHDOG=1") && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }

    /// Waits for a sign of life.
    fn sign_of_life(&self) {
        while !self.within(TURN).expect("a sign of life").starts_with("WATCHDOG=1") {}
    }
}

fn unit() -> String {
    fs::read_to_string(unit_path()).unwrap()
}

fn unit_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/systemd/lb.service")
}

fn start(lab: &Lab, words: &[&str]) -> (Agent, String) {
    let config = head(lab) + &services(lab, "dsr", &[1]);
    (Agent::start_by(lab.balancer(), words, &config).unwrap(), config)
}

#[test]
fn systemd_is_told_of_the_agents_life() {
    if !needs_root("systemd_is_told_of_the_agents_life") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 1);
    let notified = Notified::listen(&lab);
    let socket = format!("NOTIFY_SOCKET={}", notified.path.display());
    let watchdog = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
    let (agent, config) = start(&lab, &["env", &socket, &watchdog]);
    let ready = notified.next();
    assert!(ready.starts_with("READY=1\nSTATUS=attached to eth0; 2 service(s), 0 name(s); "), "{ready}");
    assert!(has_program(&lab, "eth0"));
    notified.sign_of_life();

    for (config, status) in [
        (config.replace("weight = 1", "wieght = 1"), "the last reload was refused, see the log; attached to eth0; 2 s"),
        (config.clone(), "attached to eth0; 2 service(s), "),
    ] {
        agent.reload(&config).unwrap();
        let reloading = notified.next();
        let stamp = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(stamp.parse::<u64>().unwrap() > 0);
        let ready = notified.next();
        assert!(ready.starts_with(&format!("READY=1\nSTATUS={status}")), "{ready}");
    }

    // Who is stopped is as good as hung, and must not look alive.
    notified.sign_of_life();
    agent.running().signal(Signal::SIGSTOP).unwrap();
    while notified.within(WATCHDOG).is_some() {}
    agent.running().signal(Signal::SIGCONT).unwrap();
    notified.sign_of_life();

    assert_eq!(agent.terminate().unwrap().code(), Some(0));
    assert_eq!(notified.next(), "STOPPING=1\nSTATUS=stopped; the data path stays up");
    assert!(has_program(&lab, "eth0"));
}

#[test]
fn the_unit_is_right_and_tight() {
    const NAME: &str = "the_unit_is_right_and_tight";
    if !needs_program(NAME, "systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("lb.service");
    let unit = unit();
    fs::write(&copy, unit.replace("/usr/local/bin/lb", lb_binary().unwrap().to_str().unwrap())).unwrap();
    let analyze = |words: &[&str]| {
        let output = Command::new("systemd-analyze").args(words).arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "systemd-analyze {words:?}: {said}");
        said
    };
    let said = analyze(&["verify"]);
    assert!(!said.contains("lb.service"), "{said}");
    // Of 100 at most: what is left is what an agent of the network does that pins what it loads.
    analyze(&["security", "--offline=true", "--no-pager", "--threshold=26"]);
    for line in ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=always", "StateDirectory=lb"] {
        assert!(unit.lines().any(|other| other == line), "{line} is not in the unit");
    }
    assert!(unit.contains("\nWatchdogSec="));
}

#[test]
fn what_the_unit_leaves_is_enough() {
    const NAME: &str = "what_the_unit_leaves_is_enough";
    if !needs_root(NAME) || !needs_program(NAME, "setpriv") {
        return;
    }
    let unit = unit();
    let bounds = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let bounds: String =
        bounds.split(' ').map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let lab = lab(Layout::Bridged, "dsr", 1);
    let bounds = format!("--bounding-set=-all{bounds}");
    let (agent, config) = start(&lab, &["setpriv", "--no-new-privs", "--inh-caps=-all", &bounds]);
    assert!(has_program(&lab, "eth0"));
    // All that it does later as well.
    agent.lb(["detach"]).unwrap();
    agent.lb(["attach"]).unwrap();
    agent.reload(&config).unwrap();
    tests::wait_until(TURN, "the reload", || agent.running().log().contains(" reloaded").then_some(())).unwrap();
    let log = agent.running().log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_running_agent_holds_nothing_that_it_does_not_need() {
    if !needs_root("a_running_agent_holds_nothing_that_it_does_not_need") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 1);
    let (agent, _) = start(&lab, &[]);
    let process = PathBuf::from(format!("/proc/{}", agent.running().pid()));
    let threads: Vec<_> = fs::read_dir(process.join("task")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(threads.len() > 1);
    for thread in threads {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        let has = |line: &str| status.lines().any(|other| other == line);
        assert!(has("NoNewPrivs:\t1"), "{status}");
        // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF of the kernel's capability.h.
        let few = "000000c000001400";
        for set in ["CapPrm", "CapEff"] {
            assert!(has(&format!("{set}:\t{few}")), "{status}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert!(has(&format!("{set}:\t0000000000000000")), "{status}");
        }
    }
    // The folder of its pins, whose lock it holds, is the only place in the file system that it keeps open.
    let pins = lab.pins();
    for entry in fs::read_dir(process.join("fd")).unwrap() {
        let entry = entry.unwrap();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // One that was open while the folder was read may be gone.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        // What the one who runs the test has left open.
        let own = fs::read_link(format!("/proc/self/fd/{number}"));
        if number < 3 || own.is_ok_and(|own| own == target) {
            continue;
        }
        let text = target.display().to_string();
        let is_kernels = ["socket:", "anon_inode:", "pipe:"].iter().any(|kind| text.starts_with(kind));
        assert!(is_kernels || target == pins, "{number} is {text}");
        let information = fs::read_to_string(process.join("fdinfo").join(number.to_string())).unwrap_or_default();
        let flags = information.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        // O_CLOEXEC of the kernel's fcntl.h: no program that it might start would have it.
        let closes = flags.is_none_or(|flags| u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 != 0);
        assert!(closes, "{number}, {text}, outlives an exec: {information}");
    }
}
