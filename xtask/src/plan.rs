//! From what is missing to the commands that install it. Pure: nothing here looks at the machine or changes it.

use std::fmt;

use crate::need::Cure;

/// The release that the project's objects are built with; see also its LLVM in `need.rs`.
const LINKER_VERSION: &str = "0.13.0";

/// What decides how things are installed on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Whether this process may install packages.
    pub root: bool,
    /// Whether there is apt.
    pub apt: bool,
    /// Whether the packages are those of Debian itself, which alone has toolchains recent enough.
    pub debian: bool,
    /// Whether there is rustup.
    pub rustup: bool,
}

/// One command of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Install Debian packages, all in one call.
    Packages(Vec<&'static str>),
    /// Have rustup install a nightly toolchain with its library sources.
    Toolchain,
    /// Compile bpf-linker.
    Linker,
    /// A command to be run by hand.
    Advice(&'static str),
}

/// The steps that cure all of `cures`, in the order to take them: packages before what is built with them.
pub fn plan(cures: &[Cure], machine: &Machine) -> Vec<Step> {
    let mut packages = Vec::new();
    let mut others = Vec::new();
    for cure in cures {
        match cure {
            Cure::Packages(names) => packages.extend_from_slice(names),
            Cure::Toolchain if machine.apt && machine.debian => {
                packages.extend_from_slice(&["rustc-web", "cargo-web", "rust-web-src"]);
            }
            Cure::Toolchain => others.push(Step::Toolchain),
            Cure::Linker => others.push(Step::Linker),
            Cure::Advice(command) => others.push(Step::Advice(command)),
        }
    }
    let first = (!packages.is_empty()).then_some(Step::Packages(packages));
    first.into_iter().chain(others).collect()
}

impl Step {
    /// Whether `cargo xtask setup` can take this step itself.
    pub fn is_ours(&self, machine: &Machine) -> bool {
        match self {
            Self::Packages(_) => machine.root && machine.apt,
            Self::Toolchain => machine.rustup,
            Self::Linker => true,
            Self::Advice(_) => false,
        }
    }

    /// What is being installed, in few words.
    pub fn subject(&self) -> String {
        match self {
            Self::Packages(names) => names.join(" "),
            Self::Toolchain => "a nightly Rust toolchain with rust-src".to_owned(),
            Self::Linker => format!("bpf-linker {LINKER_VERSION}"),
            Self::Advice(command) => (*command).to_owned(),
        }
    }

    /// The environment variables and the words of the command.
    ///
    /// apt waits for another apt to finish rather than failing, and asks no questions.
    pub fn command(&self) -> (Vec<(&'static str, &'static str)>, Vec<&'static str>) {
        match self {
            Self::Packages(names) => {
                let mut words =
                    vec!["apt-get", "-o", "DPkg::Lock::Timeout=500", "install", "-y", "--no-install-recommends"];
                words.extend_from_slice(names);
                (vec![("DEBIAN_FRONTEND", "noninteractive")], words)
            }
            Self::Toolchain => (
                vec![],
                vec!["rustup", "toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"],
            ),
            Self::Linker => (
                vec![("LLVM_PREFIX", "/usr/lib/llvm-22")],
                vec![
                    "cargo",
                    "install",
                    "bpf-linker",
                    "--version",
                    LINKER_VERSION,
                    "--no-default-features",
                    "--features",
                    "llvm-22",
                    "--locked",
                ],
            ),
            Self::Advice(command) => (vec![], command.split(' ').collect()),
        }
    }

    /// The line to type into a shell for this step.
    pub fn by_hand(&self, machine: &Machine) -> String {
        match self {
            Self::Packages(names) if !machine.apt => {
                format!("there is no apt here: install what Debian packages as {}", names.join(" "))
            }
            Self::Packages(_) if !machine.root => format!("sudo env {self}"),
            Self::Toolchain if !machine.rustup => format!("install rustup, then: {self}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variables, words) = self.command();
        for (name, value) in variables {
            write!(formatter, "{name}={value} ")?;
        }
        formatter.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: Machine = Machine { root: true, apt: true, debian: true, rustup: true };
    const ELSEWHERE: Machine = Machine { root: false, apt: false, debian: false, rustup: true };

    #[test]
    fn nothing_missing_means_nothing_to_do() {
        assert_eq!(plan(&[], &DEBIAN), []);
    }

    #[test]
    fn packages_of_all_needs_go_into_one_call_before_the_rest() {
        let cures =
            [Cure::Linker, Cure::Packages(&["llvm-22-dev", "libzstd-dev"]), Cure::Toolchain, Cure::Packages(&["curl"])];
        let packages = vec!["llvm-22-dev", "libzstd-dev", "rustc-web", "cargo-web", "rust-web-src", "curl"];
        assert_eq!(plan(&cures, &DEBIAN), [Step::Packages(packages), Step::Linker]);
    }

    #[test]
    fn the_toolchain_comes_from_rustup_where_the_packages_are_not_debians() {
        let ubuntu = Machine { debian: false, ..DEBIAN };
        assert_eq!(plan(&[Cure::Toolchain], &ubuntu), [Step::Toolchain]);
        assert_eq!(plan(&[Cure::Toolchain], &ELSEWHERE), [Step::Toolchain]);
    }

    #[test]
    fn without_root_packages_are_not_ours_and_the_line_to_type_has_sudo() {
        let user = Machine { root: false, ..DEBIAN };
        let step = Step::Packages(vec!["ethtool", "tcpdump"]);
        assert!(step.is_ours(&DEBIAN));
        assert!(!step.is_ours(&user));
        assert_eq!(
            step.by_hand(&user),
            "sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 install -y \
             --no-install-recommends ethtool tcpdump"
        );
    }

    #[test]
    fn without_apt_the_packages_are_named() {
        let step = Step::Packages(vec!["ethtool", "tcpdump"]);
        assert!(!step.is_ours(&Machine { root: true, ..ELSEWHERE }));
        assert_eq!(step.by_hand(&ELSEWHERE), "there is no apt here: install what Debian packages as ethtool tcpdump");
    }

    #[test]
    fn the_linker_is_compiled_by_whoever_calls() {
        assert!(Step::Linker.is_ours(&ELSEWHERE));
        assert_eq!(
            Step::Linker.by_hand(&ELSEWHERE),
            "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features \
             --features llvm-22 --locked"
        );
    }

    #[test]
    fn the_toolchain_needs_rustup() {
        let bare = Machine { rustup: false, ..ELSEWHERE };
        assert!(!Step::Toolchain.is_ours(&bare));
        assert_eq!(
            Step::Toolchain.by_hand(&bare),
            "install rustup, then: rustup toolchain install nightly --profile minimal --component rust-src"
        );
    }

    #[test]
    fn components_are_only_advised() {
        let steps = plan(&[Cure::Advice("rustup component add rustfmt")], &DEBIAN);
        assert_eq!(steps, [Step::Advice("rustup component add rustfmt")]);
        assert!(steps.iter().all(|step| !step.is_ours(&DEBIAN)));
    }
}
