//! The same sources and tools give the same BPF objects, byte for byte, wherever the checkout lies.
//!
//! The agent's build script, the very program that cargo ran to make the embedded objects, runs again in two copies of
//! the workspace, each clean and at a depth of its own. Everything but the objects is spared being compiled again.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use lb_userspace::kernel::{DECAP_OBJECT, OBJECT, SEEN_OBJECT};
use serde_json::Value;

/// What the build script leaves behind, and what is embedded of it.
static OBJECTS: [(&str, &[u8]); 3] =
    [("lb-ebpf.bpf.o", OBJECT), ("lb-decap.bpf.o", DECAP_OBJECT), ("lb-seen.bpf.o", SEEN_OBJECT)];

#[test]
fn the_objects_are_the_same_wherever_they_are_built() {
    let ours = BuildScript::find();
    let folder = tempfile::tempdir().unwrap();
    let shallow = folder.path().join("a");
    let deep = folder.path().join("another/folder/farther/down");

    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| ours.build_copy(&shallow));
        let other = scope.spawn(|| ours.build_copy(&deep));
        (one.join().unwrap(), other.join().unwrap())
    });

    for (((name, embedded), one), other) in OBJECTS.iter().zip(one).zip(other) {
        assert!(!one.is_empty(), "{name} is empty");
        assert!(one == other, "two copies of the sources give two {name}");
        assert!(one == *embedded, "a copy of the sources gives another {name} than the embedded one");
    }
}

/// The build script of `lb-userspace`.
struct BuildScript {
    program: PathBuf,
}

impl BuildScript {
    /// Asks cargo for the one that belongs to this test; it is compiled already.
    fn find() -> Self {
        let mut command = cargo();
        command.args(["test", "--package", "tests", "--no-run", "--message-format", "json"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let messages = said(&mut command);
        let program = messages
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|message| message["reason"] == "compiler-artifact")
            .filter(|message| message["target"]["kind"][0] == "custom-build")
            .find(|message| message["package_id"].as_str().unwrap().contains("lb-userspace"))
            .map(|message| PathBuf::from(message["filenames"][0].as_str().unwrap()))
            .unwrap();
        Self { program }
    }

    /// Copies the sources to `folder` and returns the objects that are built of them there.
    fn build_copy(&self, folder: &Path) -> [Vec<u8>; 3] {
        copy_sources(folder);
        let package = folder.join("lb-userspace");
        // Laid out as by cargo, so that whatever the script shares between runs is not shared beyond the copy.
        let out = folder.join("target/debug/build/lb-userspace/out");
        fs::create_dir_all(&out).unwrap();
        said(
            Command::new(&self.program)
                .current_dir(&package)
                .env("CARGO_MANIFEST_DIR", &package)
                .env("OUT_DIR", &out)
                .env("CARGO_CFG_TARGET_ARCH", env::consts::ARCH)
                .env("CARGO_CFG_TARGET_ENDIAN", if cfg!(target_endian = "big") { "big" } else { "little" }),
        );
        OBJECTS.map(|(name, _)| fs::read(out.join(name)).unwrap())
    }
}

/// Copies the workspace's own files and its members: the nested cargo reads the manifests of all.
fn copy_sources(folder: &Path) {
    let metadata = said(cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let root = Path::new(metadata["workspace_root"].as_str().unwrap());
    fs::create_dir_all(folder).unwrap();
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root.join(name), folder.join(name)).unwrap();
    }
    copy_folder(&root.join(".cargo"), &folder.join(".cargo"));
    for package in metadata["packages"].as_array().unwrap() {
        let from = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        copy_folder(from, &folder.join(from.strip_prefix(root).unwrap()));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What a command says on its standard output; it must succeed.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
