//! Files of records.

use lb_userspace::{
    config::Config,
    model::{
        dns::{data::Data, stored::Set},
        intent::Intent,
    },
};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// A folder with a config and a file of records; it goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, records: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("records-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("names.txt"), records).unwrap();
        let config = "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[dns]\nlisten = [\"192.0.2.53\"]\n\
            [[dns.domain]]\nname = \"example.com\"\nprimary = \"ns1.example.com\"\n\
            [[dns.name]]\nname = \"own.example.com\"\naddresses = [\"192.0.2.1\"]\n[[dns.records]]\nfile = \"names.txt\"\n";
        fs::write(path.join("lb.toml"), config).unwrap();
        Self(path)
    }

    fn intent(&self) -> Result<Intent, String> {
        let config = Config::read(&self.0.join("lb.toml")).map_err(|errors| errors.to_string())?;
        Intent::new(&config).map_err(|errors| errors.to_string())
    }

    /// What is said, without the folder.
    fn errors(&self) -> String {
        self.intent().unwrap_err().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn wire(name: &str) -> Vec<u8> {
    name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

#[test]
fn lines_are_records() {
    let folder = Folder::new(
        "lines",
        "# names\n; of a test\n\nwww.example.com 300 A 192.0.2.1\n\
         other.example.com\t60\ttxt\tsome text, as it stands\nWWW.example.com. 300 A 192.0.2.2\n\
         other.example.com 60 TXT \"one \\\"string\\\"\"  \"and another\"\nother.example.com 9 MX 0 .\n\
         www.example.com 5 AAAA 2001:db8::1\nalias.example.net 7 CNAME www.example.com\n\
         _sip._udp.deep.example.com 0 SRV 1 2 5060 sip.example.com.\r\n",
    );
    let intent = folder.intent().unwrap();
    let stored = intent.zone().stored();
    let sets = |name: &str| -> Vec<(u32, Vec<Data>)> {
        let own = |set: Set<'_>| {
            let data = set.data.iter().map(|view| Data { kind: view.kind, bytes: view.bytes.to_vec() });
            (set.ttl_seconds, data.collect())
        };
        stored.get(&wire(name)).unwrap_or_default().into_iter().map(own).collect()
    };
    let address = |text: &str| Data::address(text.parse().unwrap());
    assert_eq!(
        sets("www.example.com"),
        [(300, vec![address("192.0.2.1"), address("192.0.2.2")]), (5, vec![address("2001:db8::1")])]
    );
    let texts = vec![Data::txt(&["some text, as it stands"]), Data::txt(&["one \"string\"", "and another"])];
    assert_eq!(sets("other.example.com"), [(9, vec![Data::mx(0, &[0])]), (60, texts)]);
    assert_eq!(sets("alias.example.net"), [(7, vec![Data::cname(&wire("www.example.com"))])]);
    assert_eq!(sets("_sip._udp.deep.example.com"), [(0, vec![Data::srv(1, 2, 5060, &wire("sip.example.com"))])]);
    for between in ["_udp.deep.example.com", "deep.example.com"] {
        assert!(stored.contains(&wire(between)) && sets(between).is_empty());
    }
    assert!(!stored.contains(&wire("example.net")) && !stored.contains(&wire("example.com")));
    assert_eq!(intent.zone().len(), 5);
}

#[test]
fn a_domain_is_no_alias() {
    let folder = Folder::new("alias", "example.com 300 CNAME www.example.net\n");
    assert_eq!(
        folder.errors(),
        "lb.toml:5: domain `example.com`: the domain's own name has a CNAME, beside which nothing may be, not even the domain \
         (RFC 1034 section 3.6.2); write addresses for the name instead"
    );
}

#[test]
fn problems_have_file_and_line() {
    let folder = Folder::new(
        "problems",
        "www.example.com 300 A 192.0.2.1\nwww.example.com\nwww.example.com x A 192.0.2.2\nwww.example.com 300 NS ns1\n\
         www.example.com 300 A 2001:db8::1\na..b 300 A 192.0.2.1\nown.example.com 300 A 192.0.2.1\n\
         www.example.com 60 A 192.0.2.3\nWWW.example.com 300 A 192.0.2.1\nwww.example.com 300 CNAME x\n\
         twice.example.com 1 CNAME x\ntwice.example.com 1 CNAME y\nwww.example.com 2147483648 A 192.0.2.9\n",
    );
    assert_eq!(
        folder.errors(),
        "names.txt:2: not a record; write NAME TTL TYPE DATA, such as `www.example.com 300 A 192.0.2.1`\n\
         names.txt:3: name `www.example.com`: TTL `x` is not 0 to 2147483647 seconds; write a number, such as 300\n\
         names.txt:4: name `www.example.com`: type `NS` is unknown here; write A, AAAA, CNAME, MX, TXT or SRV\n\
         names.txt:5: name `www.example.com`: A `2001:db8::1` can't be read; write one such as 192.0.2.1\n\
         names.txt:6: name `a..b`: an empty label, two dots in a row or one at the start; write names such as www.example.com\n\
         names.txt:7: name `own.example.com`: the name has a [[dns.name]] of its own, at line 9 of the config; write all its records there\n\
         names.txt:8: name `www.example.com`: the name's A records have TTL 300 at line 1; write the same for all of them\n\
         names.txt:9: name `www.example.com`: the record is there twice, first at line 1; write it once\n\
         names.txt:10: name `www.example.com`: a name with CNAME has no other record, and this one has one at line 1; write one of them\n\
         names.txt:12: name `twice.example.com`: a name with CNAME has no other record, and this one has one at line 11; write one of them\n\
         names.txt:13: name `www.example.com`: TTL `2147483648` is not 0 to 2147483647 seconds; write a number, such as 300"
    );
}

#[test]
fn a_record_that_no_message_holds() {
    let folder = Folder::new("long", &format!("x 1 TXT {}\n", "x".repeat(70_000)));
    let expected =
        "names.txt:1: name `x`: the TXT records have 70287 bytes together, 65225 fit in one answer; write fewer";
    assert_eq!(folder.errors(), expected);
}

#[test]
fn of_many_problems_the_first_are_told() {
    let errors = Folder::new("many", &"?\n".repeat(1_000)).errors();
    assert!(errors.starts_with("names.txt: 1000 lines have problems; these are the first 20\nnames.txt:1: "));
    assert_eq!(errors.lines().count(), 21);
}

#[test]
fn a_file_that_is_not_there() {
    let folder = Folder::new("missing", "");
    fs::remove_file(folder.0.join("names.txt")).unwrap();
    let errors = folder.errors();
    assert_eq!(
        errors,
        "lb.toml:12: cannot read names.txt: No such file or directory (os error 2); write the path of a file, from the config's folder"
    );
    fs::write(folder.0.join("names.txt"), "").unwrap();
}

/// The time is that of an unoptimized build on a busy machine; in a release it is a fraction.
#[test]
fn a_hundred_thousand_lines_are_read_at_once() {
    let mut text = String::new();
    for number in 0..100_000 {
        let [.., a, b, c] = u32::to_be_bytes(number);
        writeln!(text, "host-{number}.example.com 300 A 10.{a}.{b}.{c}").unwrap();
    }
    let folder = Folder::new("large", &text);
    let started = Instant::now();
    let intent = folder.intent().unwrap();
    assert_eq!(intent.zone().len(), 100_001);
    assert!(intent.zone().stored().contains(&wire("host-99999.example.com")));
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}
