//! The kernel's verifier accepts the programs, and does not have to work much harder for them than it did.
//!
//! `UPDATE=1 cargo test -p tests --test verifier` records the number of instructions anew, for review.

use std::fs;
use tests::{followed, needs_root, skip};

#[test]
fn the_verifier_accepts_the_programs_with_no_more_work_than_recorded() {
    const NAME: &str = "the_verifier_accepts_the_programs_with_no_more_work_than_recorded";
    if !needs_root(NAME) {
        return;
    }
    let followed = followed::followed().unwrap();
    let version = followed::version(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap());
    println!("Linux {version}: instructions followed {followed:?}");
    if !followed::compare(&version, &followed).unwrap_or_else(|error| panic!("{error:#}")) {
        skip(NAME, &format!("there are no numbers for Linux {version}"));
    }
}
