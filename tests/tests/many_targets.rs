//! Five thousand targets on one core, a third of which hang: each is checked at its time, with a bounded number of sockets.

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};
use support::{TURN, head, lab, service};
use tests::{Agent, Crowd, Layout, needs_program, needs_root, wait_until};

const TARGETS: u16 = 5_000;
const SILENT: u16 = TARGETS / 3;
const EACH: u16 = 500;
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it is looked on.
const WINDOW: Duration = Duration::from_secs(10);
/// The sockets of checks that the agent has at most, of targets that answer and of those that do not; and files of other kinds.
const MOST_FILES: usize = 2 * 2_048 + 200;

/// Counts the open files of a process again and again.
struct Watch {
    done: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn of(pid: u32) -> Self {
        let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ended, counted) = (Arc::clone(&done), Arc::clone(&most));
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        let watch = move || {
            while !ended.load(Ordering::SeqCst) {
                counted.fetch_max(fs::read_dir(&folder).map_or(0, Iterator::count), Ordering::SeqCst);
                sleep(Duration::from_millis(20));
            }
        };
        Self { done, most, thread: Some(thread::spawn(watch)) }
    }

    /// The most there were since this was asked last.
    fn most(&self) -> usize {
        self.most.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn five_thousand_targets_on_one_core() {
    let name = "five_thousand_targets_on_one_core";
    if !needs_root(name) || !needs_program(name, "taskset") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 1);
    let crowd = Crowd::start(&lab.backends()[0], lab.balancer(), 80).unwrap();
    let answering: Vec<_> = (0..TARGETS - SILENT).map(|number| crowd.member(number)).collect();
    let silent: Vec<_> = (0..SILENT).map(|number| crowd.silent(number)).collect();
    let times = format!("interval_ms = {}\ntimeout_ms = 1500\nrise = 1\nfall = 2\n", INTERVAL.as_millis());
    let mut config = head(&lab).split_once("[check.web]").unwrap().0.to_owned()
        + &format!("[check.web]\nport = 80\n{times}[check.page]\nkind = \"http\"\nport = 80\n{times}");
    for (number, backends) in answering.chunks(EACH.into()).chain(silent.chunks(EACH.into())).enumerate() {
        let address = SocketAddr::new(lab.service_ipv4(0).into(), 1_000 + u16::try_from(number).unwrap());
        let at_service = |backend: &SocketAddr| (SocketAddr::new(backend.ip(), address.port()), 1);
        let backends: Vec<_> = backends.iter().map(at_service).collect();
        let text = service(&format!("many{number}"), "tcp", address, "dsr", &backends);
        // Who says nothing takes connections all the same.
        let check = if crowd.silent(0).ip() <= backends.first().unwrap().0.ip() { "page" } else { "web" };
        config +=
            &text.replace("check = \"web\"", &format!("check = \"{check}\"")).replace("slots = 1009", "slots = 65537");
    }
    let agent = Agent::start_by(lab.balancer(), &["taskset", "--cpu-list", "0"], &config).unwrap();
    let watch = Watch::of(agent.running().pid());
    let up_and_down = || {
        let status = agent.status().unwrap();
        let services = status["services"].as_array().unwrap().iter();
        let backends: Vec<_> = services.flat_map(|service| service["backends"].as_array().unwrap()).collect();
        ["up", "down"].map(|health| backends.iter().filter(|backend| backend["health"] == *health).count())
    };
    let wait_for = |what: &str, wanted: [u16; 2]| {
        let wanted = wanted.map(usize::from);
        let mut last = [0; 2];
        let waited = wait_until(2 * TURN, what, || {
            last = up_and_down();
            (last == wanted).then_some(())
        });
        waited.unwrap_or_else(|error| panic!("{error:#}: {last:?} are up and down:\n{}", agent.running().log()));
    };
    wait_for("all that answer are up, all others down", [TARGETS - SILENT, SILENT]);

    // Each is checked at its time, whether it answers or hangs, and not by chance.
    sleep(INTERVAL);
    drop(crowd.take_seen());
    let begun = Instant::now();
    sleep(WINDOW);
    let (seen, window) = (crowd.take_seen(), begun.elapsed());
    let due = window.as_secs_f64() / INTERVAL.as_secs_f64();
    // One more or less at the ends of the time; and one by chance, of which there is a tenth of an interval each.
    let allowed = due - 2.0..=due + 2.0;
    for target in answering.iter().chain(&silent) {
        let IpAddr::V4(address) = target.ip() else { panic!("{target}") };
        let times = seen.get(&address).map_or(0, Vec::len);
        assert!(allowed.contains(&(times as f64)), "{target} was checked {times} times in {window:?}");
    }
    let all: usize = seen.values().map(Vec::len).sum();
    let wanted = f64::from(TARGETS) * due;
    assert!((all as f64 - wanted).abs() < wanted / 20.0, "{all} checks in {window:?} instead of {wanted}");
    assert_eq!(up_and_down(), [TARGETS - SILENT, SILENT].map(usize::from));
    let most = watch.most();
    assert!(most > 500 && most < MOST_FILES, "{most} open files");

    // With all of them hanging there are more than there are places for sockets.
    crowd.be_deaf(true).unwrap();
    wait_for("all are down", [0, TARGETS]);
    sleep(INTERVAL);
    let most = watch.most();
    assert!(most > 2_048 && most < MOST_FILES, "{most} open files");
    crowd.be_deaf(false).unwrap();
    wait_for("all that answer are up again", [TARGETS - SILENT, SILENT]);
    assert!(watch.most() < MOST_FILES);
    assert!(!agent.running().log().contains("not probed"), "{}", agent.running().log());
}
