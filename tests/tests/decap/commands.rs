//! `lb decap attach`, `detach` and `status`: what they leave behind, and what they say when something is wrong.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 the kernel refused.

use crate::{Site, says};
use std::{fs, os::unix::fs::PermissionsExt as _, thread};
use tests::{lb_binary, needs_root};

/// The names of what is pinned.
fn pinned(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(&site.pins).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Gives the backend a pair of further interfaces, the first with an address and a dot in its name.
fn add_pair(site: &Site) {
    let lines = [
        "link add ext.1 type veth peer name ext.2",
        "link set ext.1 up",
        "link set ext.2 up",
        "address add 10.99.0.1/24 dev ext.1",
    ];
    site.backend().ip(&lines.map(str::to_owned)).unwrap();
}

#[test]
fn what_is_attached_stays_until_it_is_detached() {
    if !needs_root("what_is_attached_stays_until_it_is_detached") {
        return;
    }
    let site = Site::up();
    says(site.decap(&["status"]), 0, "attached to no interface\n");
    assert!(!site.pins.exists());

    add_pair(&site);
    let attach = site.decap(&["attach", "eth0", "ext.1"]);
    says(attach, 0, "attached to ext.1: packets to 10.77.0.21, 10.99.0.1, fd77::21 leave their tunnels");
    let maps = ["ADDRESSES", "COUNTS", "SETTINGS", "link"];
    let names = |interface: &str| maps.map(|map| format!("{map}-{interface}"));
    // bpffs has no dots in its names.
    let mut all = [names("eth0"), names("ext:1")].concat();
    all.sort();
    assert_eq!(pinned(&site), all);
    let first = site.program("eth0").unwrap();
    assert!(site.program("ext.1").is_some());

    // Another attach changes only what it names.
    let beside = site.program("ext.1");
    says(site.decap(&["attach", "eth0", "--address", "10.77.0.21"]), 0, "packets to 10.77.0.21 leave");
    assert_ne!(site.program("eth0"), Some(first));
    assert_eq!((site.program("ext.1"), pinned(&site)), (beside, all));
    let status = site.decap(&["status"]).stdout;
    for line in ["interface eth0  native\n  to    10.77.0.21\n  from  any\n", "interface ext.1  native\n"] {
        assert!(status.contains(line), "{status}");
    }

    says(site.decap(&["detach", "ext.1", "ext.2"]), 1, "lb: ext.2: not attached; `lb decap status` lists what is");
    assert_eq!((site.program("ext.1"), pinned(&site)), (None, names("eth0").to_vec()));
    says(site.decap(&["detach", "eth0"]), 0, "detached from eth0");
    assert_eq!(site.program("eth0"), None);
    assert!(!site.pins.exists());
    says(site.decap(&["detach", "eth0", "eth1"]), 1, "lb: eth0, eth1: not attached");
}

/// As when a machine comes up, with a unit for each interface.
#[test]
fn commands_at_once_wait_for_each_other() {
    if !needs_root("commands_at_once_wait_for_each_other") {
        return;
    }
    const PAIRS: usize = 3;
    let site = Site::up();
    let names: Vec<_> = (0..PAIRS).flat_map(|pair| [format!("a{pair}"), format!("b{pair}")]).collect();
    let pairs: Vec<_> = (0..PAIRS).map(|pair| format!("link add a{pair} type veth peer name b{pair}")).collect();
    site.backend().ip(&pairs).unwrap();
    let at_once = |verb: &[&str], said: &str| {
        thread::scope(|scope| {
            for name in &names {
                let site = &site;
                scope.spawn(move || says(site.decap(&[verb, &[name]].concat()), 0, &format!("{said} {name}")));
            }
        });
    };
    // The folder comes and goes with the first and the last of them.
    for _ in 0..3 {
        at_once(&["attach", "--address", "10.77.0.21"], "attached to");
        assert!(names.iter().all(|name| site.program(name).is_some()));
        at_once(&["detach"], "detached from");
        assert!(names.iter().all(|name| site.program(name).is_none()));
        assert!(!site.pins.exists());
    }
}

#[test]
fn an_interface_that_went_is_attached_again() {
    if !needs_root("an_interface_that_went_is_attached_again") {
        return;
    }
    let site = Site::up();
    add_pair(&site);
    says(site.decap(&["attach", "ext.1"]), 0, "attached to ext.1");
    site.backend().ip(&["link delete ext.1".into()]).unwrap();
    assert_eq!(site.status()["state"], "gone");
    says(site.decap(&["attach", "ext.1"]), 3, "lb: interface ext.1 does not exist");
    add_pair(&site);
    // Another interface has its name.
    assert_eq!(site.status()["state"], "gone");
    says(site.decap(&["attach", "ext.1"]), 0, "attached to ext.1");
    assert_eq!(site.status()["state"], "native");
    site.backend().ip(&["link delete ext.1".into()]).unwrap();
    says(site.decap(&["detach", "ext.1"]), 0, "detached from ext.1");
    assert!(!site.pins.exists());
}

#[test]
fn mistakes_are_told_with_a_cure() {
    if !needs_root("mistakes_are_told_with_a_cure") {
        return;
    }
    let site = Site::up();
    add_pair(&site);
    says(site.decap(&["attach"]), 2, "required arguments were not provided");
    says(site.decap(&["attach", "eth7"]), 3, "lb: interface eth7 does not exist; `ip link` lists those that do");
    // One that is wrong keeps all from being attached.
    says(site.decap(&["attach", "eth0", "eth7"]), 3, "lb: interface eth7 does not exist");
    says(
        site.decap(&["attach", "ext.2"]),
        2,
        "lb: ext.2: no address that a tunnel could end at; name one with `--address`",
    );
    says(
        site.decap(&["attach", "eth0", "--source", "10.0.0.1/8"]),
        2,
        "10.0.0.1 does not end where the 8 bits do; write 10.0.0.0/8",
    );
    says(site.decap(&["attach", "eth0", "--address", "eth0"]), 2, "invalid IP address syntax");
    let many: Vec<_> = (0..9).flat_map(|last| ["--source".to_owned(), format!("10.0.0.{last}")]).collect();
    let many: Vec<_> = ["attach", "eth0"].into_iter().chain(many.iter().map(String::as_str)).collect();
    says(site.decap(&many), 2, "lb: 9 sources are too many; name up to 8 prefixes");
    assert_eq!(site.program("eth0"), None);
    assert!(!site.pins.exists());

    // Loopback has no native mode.
    let said =
        "lb: interface lo takes no XDP program in native mode; try the other one (`attach` in the config, `--generic`)";
    says(site.decap(&["attach", "lo", "--address", "10.77.0.21"]), 3, said);
    says(site.decap(&["attach", "lo", "--address", "10.77.0.21", "--generic"]), 0, "attached to lo");
    says(site.decap(&["detach", "lo"]), 0, "detached from lo");

    let pass = site.pins.with_file_name("pass").display().to_string();
    let put = ["ip", "link", "set", "dev", "eth0", "xdpdrv", "pinned", &pass];
    site.backend().run(put).unwrap();
    let foreign = site.program("eth0");
    says(
        site.decap(&["attach", "ext.1", "eth0"]),
        3,
        "lb: interface eth0 already has an XDP program: `ip link show dev eth0` shows it, \
         `ip link set dev eth0 xdp off` removes it",
    );
    assert_eq!(site.program("eth0"), foreign);
    // Nothing is left of the one that failed; those before it are attached.
    assert!(pinned(&site).iter().all(|name| name.ends_with("-ext:1")), "{:?}", pinned(&site));

    let elsewhere = Site { pins: site.lab.folder().join("pins"), ..site };
    let said = format!(
        "lb: {} is not on bpffs; choose `pins` below a mount of it, such as /sys/fs/bpf/lb",
        elsewhere.pins.display()
    );
    says(elsewhere.decap(&["attach", "eth0"]), 3, &said);
}

#[test]
fn pins_of_an_agent_are_left_alone() {
    if !needs_root("pins_of_an_agent_are_left_alone") {
        return;
    }
    let site = Site::up();
    fs::create_dir(&site.pins).unwrap();
    let map = aya::maps::Array::<_, u64>::create(1, 0).unwrap();
    aya::maps::IterableMap::map(&map).pin(site.pins.join("SETTINGS")).unwrap();
    let said = format!(
        "lb: {} holds the pins of an agent; choose other `--pins`, such as /sys/fs/bpf/lb-decap",
        site.pins.display()
    );
    says(site.decap(&["attach", "eth0"]), 3, &said);
    assert_eq!(pinned(&site), ["SETTINGS"]);
}

#[test]
fn pins_that_are_broken_are_told_and_mended() {
    if !needs_root("pins_that_are_broken_are_told_and_mended") {
        return;
    }
    let site = Site::up();
    says(site.decap(&["attach", "eth0"]), 0, "attached to eth0");
    let whole = pinned(&site);
    let said = "lb: interface eth0: its pinned maps are missing or of another version of lb; attach it again, or \
                `lb decap detach eth0`";
    // Of a version that counts other things.
    let other = aya::maps::Array::<_, u64>::create(7, 0).unwrap();
    for broken in ["COUNTS-eth0", "ADDRESSES-eth0", "SETTINGS-eth0"] {
        for replaced in [false, true] {
            fs::remove_file(site.pins.join(broken)).unwrap();
            if replaced {
                aya::maps::IterableMap::map(&other).pin(site.pins.join(broken)).unwrap();
            }
            says(site.decap(&["status"]), 3, said);
            // As an attach that was killed leaves it.
            aya::maps::IterableMap::map(&other).pin(site.pins.join(format!("new-{broken}"))).unwrap();
            says(site.decap(&["attach", "eth0"]), 0, "attached to eth0");
            assert_eq!((pinned(&site), &site.status()["state"]), (whole.clone(), &"native".into()));
        }
    }
    fs::remove_file(site.pins.join("COUNTS-eth0")).unwrap();
    says(site.decap(&["detach", "eth0"]), 0, "detached from eth0");
    assert!(!site.pins.exists());
}

#[test]
fn without_privileges_decap_says_which_it_needs() {
    if !needs_root("without_privileges_decap_says_which_it_needs") {
        return;
    }
    const SAID: &str = "lb: not allowed to load BPF programs: run as root, or with the capabilities \
                        CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
    let site = Site::up();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    // Where it may not make the folder of its pins, and where it may.
    says(site.decap_behind(&nobody, &["attach", "eth0"]), 3, SAID);
    let folder = site.pins.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    says(site.decap_behind(&nobody, &["attach", "eth0"]), 3, SAID);
    assert_eq!(site.program("eth0"), None);

    fs::remove_dir(&site.pins).unwrap();
    says(site.decap(&["attach", "eth0"]), 0, "attached to eth0");
    for verb in [&["status"][..], &["detach", "eth0"], &["attach", "eth0"]] {
        says(site.decap_behind(&nobody, verb), 3, SAID);
    }
    assert!(site.program("eth0").is_some());
}

/// In a mount namespace of its own, whose bpffs goes with the command, and with it what was attached.
#[test]
fn bpffs_is_mounted_where_it_is_missing() {
    if !needs_root("bpffs_is_mounted_where_it_is_missing") {
        return;
    }
    let site = Site::up();
    let binary = lb_binary().unwrap().display().to_string();
    let script = "umount --lazy --all-targets /sys/fs/bpf && \"$1\" decap attach eth0 && \"$1\" decap status && \
                  \"$1\" decap detach eth0";
    let output = site.backend().attempt(["unshare", "--mount", "sh", "-c", script, "sh", &binary]).unwrap();
    says(output, 0, "interface eth0  native");
    assert_eq!(site.program("eth0"), None);
}

#[test]
fn a_strict_reverse_path_filter_is_warned_of() {
    if !needs_root("a_strict_reverse_path_filter_is_warned_of") {
        return;
    }
    const WARNING: &str = "warning: eth0 has a strict reverse path filter";
    let site = Site::up();
    for (all, own, warned) in
        [("0", "0", false), ("0", "1", true), ("1", "0", true), ("1", "2", false), ("2", "1", false)]
    {
        site.backend().set([("ipv4/conf/all/rp_filter", all), ("ipv4/conf/eth0/rp_filter", own)]).unwrap();
        let output = site.decap(&["attach", "eth0"]);
        assert!(output.status.success(), "{}", output.stderr);
        assert_eq!(output.stderr.contains(WARNING), warned, "all {all}, eth0 {own}: {}", output.stderr);
    }
}
