//! Files of backends that are wrong: what they were before holds, and all else goes on.

use lb_userspace::{
    config::{Config, ConfigErrors, Files},
    model::{discovery::Answers, intent::Intent},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const NAMES: [&str; 3] = ["a.json", "b.json", "c.json"];

/// A folder with a config of three NAT services, each with a file of backends; gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-files-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        for (name, number) in NAMES.iter().zip(1..) {
            folder.list(name, &format!("10.0.0.{number}"));
        }
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn list(&self, name: &str, target: &str) {
        self.write(name, &format!("[{{\"targets\": [\"{target}\"]}}]"));
    }

    /// What the config means, with what the files were before.
    fn read(&self, files: &Files, more: &str) -> Result<Intent, ConfigErrors> {
        let mut text = String::from("interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n");
        for (number, name) in NAMES.iter().enumerate() {
            text += &format!(
                "[[service]]\nname = \"{name}\"\naddress = \"192.0.2.1\"\nport = 80{number}\nmode = \"nat\"\n\
                 backends_file = \"{name}\"\n"
            );
        }
        text += more;
        let path = self.0.join("lb.toml");
        files.fit(|files| Intent::with(&Config::with_files(&text, &path, files)?, &Answers::default()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn backends(intent: &Intent) -> Vec<String> {
    let backends = intent.services().iter().flat_map(|service| &service.backends);
    backends.map(|backend| backend.endpoint.ip().to_string()).collect()
}

/// What is wrong, by file.
fn wrong(intent: &Intent) -> Vec<(String, String)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let wrong = intent.watched().iter().filter_map(|file| Some((name(&file.path), file.error.clone()?)));
    wrong.collect()
}

#[test]
fn a_wrong_file_is_what_it_was_and_the_others_are_what_they_are() {
    let folder = Folder::new("wrong");
    let right = folder.read(&Files::default(), "").unwrap();
    assert_eq!(
        (backends(&right), wrong(&right)),
        (["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(Into::into).into(), vec![])
    );
    let before = Files::of(right.watched());
    for (text, reason) in [
        ("[", "EOF while parsing"),
        ("[{\"targets\": [\"nobody\"]}]", "target `nobody` is not an IP address"),
        ("[{\"targets\": [\"10.0.0.4\"], \"labels\": {\"weight\": \"70000\"}}]", "weight 70000 is out of range"),
        ("[{\"targets\": [\"fd00::1\"]}]", "backend fd00::1 is IPv6"),
        ("[]", "no backend"),
    ] {
        folder.write("a.json", text);
        folder.list("b.json", "10.0.0.9");
        let meant = folder.read(&before, "").unwrap();
        assert_eq!(backends(&meant), ["10.0.0.1", "10.0.0.9", "10.0.0.3"], "{text}");
        let [(name, told)] = &wrong(&meant)[..] else { panic!("{text}: {:?}", wrong(&meant)) };
        assert!(name == "a.json" && told.contains(reason), "{told}");
        // It is the wrong text that is known of the file, so it is looked at again when that changes.
        assert!(meant.watched()[0].is_still(Some(text)) && !meant.watched()[0].is_still(None));
        assert_eq!(Files::of(meant.watched()).right().len(), 3);
        // Without what it was before there is nothing to go on from.
        assert!(folder.read(&Files::default(), "").is_err());
    }
    fs::remove_file(folder.0.join("a.json")).unwrap();
    let meant = folder.read(&before, "").unwrap();
    assert!(wrong(&meant)[0].1.contains("No such file") && meant.watched()[0].is_still(None));
    folder.list("a.json", "10.0.0.8");
    assert_eq!(wrong(&folder.read(&before, "").unwrap()), []);
}

#[test]
fn of_those_that_are_wrong_together_as_few_as_need_be_are_held() {
    let folder = Folder::new("together");
    let before = Files::of(folder.read(&Files::default(), "").unwrap().watched());
    // The same NAT backend at one port behind two services can't be.
    folder.list("a.json", "10.0.0.7:80");
    folder.list("b.json", "10.0.0.7:80");
    folder.list("c.json", "10.0.0.6");
    let meant = folder.read(&before, "").unwrap();
    assert_eq!(backends(&meant), ["10.0.0.7", "10.0.0.2", "10.0.0.6"]);
    let [(name, told)] = &wrong(&meant)[..] else { panic!("{:?}", wrong(&meant)) };
    assert!(name == "b.json" && told.contains("is also behind service `a.json`"), "{told}");
    // All of them can be wrong.
    for name in NAMES {
        folder.list(name, "10.0.0.7:80");
    }
    folder.write("a.json", "{}");
    let meant = folder.read(&before, "").unwrap();
    assert_eq!(wrong(&meant).iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a.json", "c.json"]);
    // What is wrong with the config itself is not theirs, and is told with its lines.
    let errors = folder.read(&before, "[limits]\nbackends = 0\n").unwrap_err();
    assert!(errors.to_string().contains("limits"), "{errors}");
}
