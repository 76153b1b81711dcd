//! Builds an object from this package: what the build scripts of `lb-userspace` and `bench` both compile.
//!
//! The same sources and tools give the same bytes, wherever the checkout is; `tests/tests/reproducible.rs` holds that.

#[path = "../xtask/src/bpf_tools.rs"]
mod bpf_tools;

use std::{
    env,
    ffi::OsString,
    iter,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};

/// Builds the programs that need `feature`, and strips each of `binaries` to `OUT_DIR/<binary>.bpf.o`.
pub fn build(feature: &str, binaries: &[&str]) -> ExitCode {
    match try_build(feature, binaries) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_build(feature: &str, binaries: &[&str]) -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed={}", bpf_tools::TOOLCHAIN_VARIABLE);
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set: this is a build script of cargo")?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);

    let toolchain = bpf_tools::toolchain().with_context(no_toolchain)?;
    let linker = bpf_tools::linker().context("bpf-linker is missing: run `cargo xtask setup`")?;
    let objcopy = bpf_tools::objcopy().context("llvm-objcopy is missing: run `cargo xtask setup`")?;

    prepare_environment(&toolchain, &linker, &out)?;
    let source = here.ancestors().map(|folder| folder.join("lb-ebpf")).find(|folder| folder.is_dir());
    let source = source.context("lb-ebpf is missing in this checkout")?;
    let package = Package {
        name: "lb-ebpf",
        features: &[feature],
        root_dir: source.to_str().context("the path of this checkout is not UTF-8")?,
        ..Default::default()
    };
    let prefix = toolchain.to_str().context("the path of the Rust toolchain for BPF is not UTF-8")?;
    aya_build::build_ebpf([package], Toolchain::Custom(prefix))?;
    for binary in binaries {
        strip(&objcopy, &out.join(binary), &out.join(format!("{binary}.bpf.o")))?;
    }
    Ok(())
}

fn no_toolchain() -> String {
    let what = format!("Rust {} or later with its library sources (rust-src)", env!("CARGO_PKG_RUST_VERSION"));
    match env::var(bpf_tools::TOOLCHAIN_VARIABLE) {
        Ok(name) => format!("{}={name} is not {what}: correct or unset it", bpf_tools::TOOLCHAIN_VARIABLE),
        Err(_) => format!("{what} is missing, which BPF needs: run `cargo xtask setup`"),
    }
}

/// Sets what the nested cargo inherits, which is the only way through aya-build: it passes no settings on.
fn prepare_environment(toolchain: &Path, linker: &Path, out: &Path) -> anyhow::Result<()> {
    // Without rustup aya-build takes the first toolchain on `PATH`; rustc always looks for its linker there.
    let path = env::var_os("PATH").unwrap_or_default();
    let directories =
        iter::once(toolchain.join("bin")).chain(env::split_paths(&path)).chain(linker.parent().map(Path::to_owned));
    // Of <target>/<profile>/build/<package and hash>/out the first.
    let target = out.ancestors().nth(4).unwrap_or(out);
    let settings: [(&str, OsString); 6] = [
        ("PATH", env::join_paths(directories).context("PATH cannot be extended")?),
        // `core` is built from source for BPF, by a flag that only nightly has without this.
        ("RUSTC_BOOTSTRAP", "1".into()),
        // Else the line information of the object, which stays in it, names the directory of the checkout.
        ("CARGO_UNSTABLE_TRIM_PATHS", "true".into()),
        ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all".into()),
        // cargo runs this script once for each set of features and each profile; `core` is compiled once for all.
        ("CARGO_BUILD_BUILD_DIR", target.join("bpf").into()),
        // aya-build makes a warning of each line; the compiler's own warnings and errors still come through.
        ("CARGO_TERM_QUIET", "true".into()),
    ];
    for (name, value) in settings {
        // SAFETY: this build script has one thread until `build_ebpf` is called, so nobody reads the environment now.
        unsafe { env::set_var(name, value) };
    }
    Ok(())
}

/// Leaves DWARF behind, most of the object. BTF and its line information, which the verifier shows, stay.
fn strip(objcopy: &Path, from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new(objcopy)
        .arg("--strip-debug")
        .args([from, to])
        .status()
        .with_context(|| format!("cannot run {}", objcopy.display()))?;
    if !status.success() {
        bail!("{} of {} failed: {status}", objcopy.display(), from.display());
    }
    Ok(())
}
