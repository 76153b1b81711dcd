//! The first file system of a kernel, in the format of `Documentation/driver-api/early-userspace/buffer-format.rst`: `newc`
//! of cpio(5), uncompressed.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// What has been put in so far.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    paths: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// A folder with all that lead to it.
    pub(crate) fn folder(&mut self, path: &Path) {
        let mut ancestors: Vec<_> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        ancestors.reverse();
        for folder in ancestors {
            self.entry(folder, FOLDER | 0o755, &[]);
        }
    }

    /// A file, and the folder that it is in; the first of several at the same place counts.
    pub(crate) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if let Some(folder) = path.parent() {
            self.folder(folder);
        }
        self.entry(path, FILE | mode, content);
    }

    /// A program of this machine, and the libraries that it is linked with where it looks for them.
    pub(crate) fn program(&mut self, path: &Path, program: &Path) -> Result<()> {
        let read = |file: &Path| fs::read(file).with_context(|| format!("reading {}", file.display()));
        self.file(path, 0o755, &read(program)?);
        // Of a program without libraries it says so, and fails.
        let said = Command::new("ldd").arg(program).output().context("running ldd")?.stdout;
        for library in libraries(&String::from_utf8_lossy(&said)) {
            self.file(library, 0o755, &read(library)?);
        }
        Ok(())
    }

    /// The archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.entry(Path::new("/TRAILER!!!"), 0, &[]);
        self.archive
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.paths.insert(path.to_owned()) {
            return;
        }
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
        let (size, name_size) = (content.len(), name.len() + 1);
        // Magic, inode, mode, user, group, links, time, size, device twice in two parts, size of the name, checksum.
        let inode = self.paths.len();
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.archive.extend(header.as_bytes());
        self.archive.extend(name);
        self.archive.push(0);
        self.align();
        self.archive.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// The paths in what ldd(1) says: `libc.so.6 => /lib/libc.so.6 (0x…)`, and the loader's by itself.
fn libraries(said: &str) -> impl Iterator<Item = &Path> {
    said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_folders_before_them_and_are_aligned() {
        let mut initramfs = Initramfs::default();
        initramfs.file("/a/bc".as_ref(), 0o644, b"hello");
        initramfs.file("/a/d".as_ref(), 0o644, b"");
        let archive = initramfs.end();
        let text = String::from_utf8(archive).unwrap();
        let names: Vec<_> =
            text.split("070701").skip(1).map(|entry| entry[104..].trim_end_matches('\0').replace('\0', "|")).collect();
        assert_eq!(names, ["a", "a/bc||hello", "a/d", "TRAILER!!!"]);
        assert_eq!(text.len() % 4, 0);
        let header = "07070100000002000081a40000000000000000000000010000000000000005";
        assert!(text[112..].starts_with(header), "{}", &text[112..]);
    }

    #[test]
    fn libraries_are_where_the_loader_finds_them() {
        let said =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found: Vec<_> = libraries(said).collect();
        assert_eq!(found, [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }
}
