//! Skipping a test by name with its reason: what cannot run here is counted, never passed silently.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

/// Records that the test `test_name` does not run here because of `reason`: printed, and a line in
/// the file that `LB_SKIPS` names, so that whoever runs the tests can count.
pub fn skip(test_name: &str, reason: &str) {
    println!("skipped {test_name}: {reason}");
    let Some(path) = env::var_os("LB_SKIPS") else {
        return;
    };
    // One write of one line in append mode, so that parallel tests do not mix their lines.
    let line = format!("{test_name}: {reason}\n");
    let written =
        OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot record a skip in {}: {error}", Path::new(&path).display());
    }
}

/// Whether `test_name`, which needs root, may run; records the skip if not.
#[must_use]
pub fn needs_root(test_name: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        skip(test_name, "needs root");
    }
    root
}

/// Whether `test_name`, which runs the command `program`, may run; records the skip if not.
#[must_use]
pub fn needs_program(test_name: &str, program: &str) -> bool {
    let found = find_program(program).is_some();
    if !found {
        skip(test_name, &format!("needs {program}, which is not installed"));
    }
    found
}

/// Whether `test_name` may run, which has the agent make a TUN device; records the skip if not.
#[must_use]
pub fn needs_tun(test_name: &str) -> bool {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    if let Err(error) = &opened {
        skip(test_name, &format!("needs /dev/net/tun: {error}"));
    }
    opened.is_ok()
}

/// Where a program is: on `PATH`, or where administration commands are, which the `PATH` of an ordinary user leaves out.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let administration = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(administration).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-of-anybody").is_none());
    }
}
