//! The tools that turn `lb-ebpf` into an object, and where they are found.
//!
//! `cargo xtask setup` and the build script of `lb-userspace` both compile this file, so that what the one calls
//! found is what the other uses.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the Rust toolchain for the BPF object: one of rustup's, or the absolute prefix that another is installed in.
pub const TOOLCHAIN_VARIABLE: &str = "LB_BPF_TOOLCHAIN";

/// The prefix of a Rust toolchain that can build for BPF.
///
/// No `core` is shipped for BPF, so the toolchain needs the library sources to compile one from. A named toolchain is
/// taken or refused, never replaced by another.
pub fn toolchain() -> Option<PathBuf> {
    if let Some(name) = env::var_os(TOOLCHAIN_VARIABLE) {
        let prefix = Path::new(&name);
        return able_prefix(|| {
            if prefix.is_absolute() { Command::new(prefix.join("bin/rustc")) } else { rustup_compiler(&name) }
        });
    }
    let of_rustup = ["nightly", "stable"].into_iter().find_map(|name| able_prefix(|| rustup_compiler(name.as_ref())));
    of_rustup.or_else(|| search_path().find_map(|folder| able_prefix(|| Command::new(folder.join("rustc")))))
}

/// The linker that makes one BPF object of LLVM bitcode.
pub fn linker() -> Option<PathBuf> {
    program("bpf-linker")
}

/// The program that strips DWARF from the object. Any release will do: those of LLVM 14 and 22 write the same bytes.
pub fn objcopy() -> Option<PathBuf> {
    program("llvm-objcopy").or_else(debian_objcopy).or_else(|| rustup_objcopy(&toolchain()?))
}

/// Where a program is: on `PATH`, where cargo installs, or where administration commands are, which the `PATH` of an
/// ordinary user leaves out.
pub fn program(name: &str) -> Option<PathBuf> {
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    search_path()
        .chain(cargo_home().map(|home| home.join("bin")))
        .chain(administration)
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn rustup_compiler(toolchain: &OsStr) -> Command {
    let mut command = Command::new("rustup");
    command.arg("run").arg(toolchain).arg("rustc");
    command
}

/// The prefix of the toolchain that this compiler belongs to, when it can build for BPF.
fn able_prefix(compiler: impl Fn() -> Command) -> Option<PathBuf> {
    let prefix = PathBuf::from(answer(compiler().args(["--print", "sysroot"]))?);
    let able = is_new_enough(&answer(compiler().arg("--version"))?)
        && prefix.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
        && is_executable(&prefix.join("bin/cargo"));
    able.then_some(prefix)
}

/// What a command prints, when it exists and succeeds.
fn answer(command: &mut Command) -> Option<String> {
    // Asking must not make rustup download a toolchain.
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `rustc 1.96.0 (...)` is at least what the workspace asks for.
fn is_new_enough(version: &str) -> bool {
    fn minor(version: &str) -> Option<u32> {
        version.strip_prefix("1.")?.split('.').next()?.parse().ok()
    }
    let wanted = minor(env!("CARGO_PKG_RUST_VERSION"));
    version.strip_prefix("rustc ").and_then(minor) >= wanted
}

/// Debian has each release of LLVM in a folder of its own; a package beside them puts one on `PATH`.
fn debian_objcopy() -> Option<PathBuf> {
    fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"llvm-")))
        .map(|folder| folder.join("bin/llvm-objcopy"))
        .filter(|file| is_executable(file))
        .max()
}

/// The component `llvm-tools` of a Rust toolchain.
fn rustup_objcopy(prefix: &Path) -> Option<PathBuf> {
    fs::read_dir(prefix.join("lib/rustlib"))
        .ok()?
        .filter_map(|target| Some(target.ok()?.path().join("bin/llvm-objcopy")))
        .find(|file| is_executable(file))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
