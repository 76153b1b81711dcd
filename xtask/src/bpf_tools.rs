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
            if prefix.is_absolute() {
                Command::new(prefix.join("bin/rustc"))
            } else {
                rustup_compiler(&name)
            }
        });
    }
    let of_rustup = ["nightly", "stable"]
        .into_iter()
        .find_map(|name| able_prefix(|| rustup_compiler(name.as_ref())));
    of_rustup.or_else(|| {
        search_path().find_map(|directory| able_prefix(|| Command::new(directory.join("rustc"))))
    })
}

/// The linker that makes one BPF object of LLVM bitcode.
pub fn linker() -> Option<PathBuf> {
    program("bpf-linker")
}

/// The program that strips DWARF from the object.
///
/// LLVM's own releases are asked first and the newest wins: different releases may lay the same sections out
/// differently, and the newest is likeliest to be the one that bpf-linker was built with. The Rust toolchain's copy
/// is the last resort, since it is not part of every installation.
pub fn objcopy() -> Option<PathBuf> {
    newest_llvm()
        .map(|prefix| prefix.join("bin/llvm-objcopy"))
        .or_else(|| program("llvm-objcopy"))
        .or_else(|| objcopy_of(&toolchain()?))
}

/// Where a program is: on `PATH`, where cargo installs, or where administration commands are, which the `PATH` of an
/// ordinary user leaves out.
pub fn program(name: &str) -> Option<PathBuf> {
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    search_path()
        .chain(cargo_home().map(|home| home.join("bin")))
        .chain(administration)
        .map(|directory| directory.join(name))
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
        && prefix
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists()
        && is_executable(&prefix.join("bin/cargo"));
    able.then_some(prefix)
}

/// What a command prints, when it exists and succeeds.
fn answer(command: &mut Command) -> Option<String> {
    // Asking must not make rustup download a toolchain.
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `rustc 1.96.0 (...)` is at least what the workspace asks for.
fn is_new_enough(version: &str) -> bool {
    fn minor(version: &str) -> Option<u32> {
        version.strip_prefix("1.")?.split('.').next()?.parse().ok()
    }
    let wanted = minor(env!("CARGO_PKG_RUST_VERSION"));
    version.strip_prefix("rustc ").and_then(minor) >= wanted
}

fn newest_llvm() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let with_release = directories.filter_map(|directory| {
        let release: u32 = directory
            .file_name()?
            .to_str()?
            .strip_prefix("llvm-")?
            .parse()
            .ok()?;
        is_executable(&directory.join("bin/llvm-objcopy")).then_some((release, directory))
    });
    with_release.max().map(|(_, directory)| directory)
}

fn objcopy_of(prefix: &Path) -> Option<PathBuf> {
    let targets = fs::read_dir(prefix.join("lib/rustlib")).ok()?;
    targets
        .filter_map(|target| Some(target.ok()?.path().join("bin")))
        .flat_map(|directory| ["llvm-objcopy", "rust-objcopy"].map(|name| directory.join(name)))
        .find(|file| is_executable(file))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
