//! Packet vectors of another balancer, if there is a file of them.

use std::{env, path::Path};
use tests::{needs_root, skip, vectors};

#[test]
fn frames_leave_as_another_balancer_would_send_them() {
    const NAME: &str = "frames_leave_as_another_balancer_would_send_them";
    let Some(file) = env::var_os("LB_VECTORS") else {
        return skip(NAME, "LB_VECTORS names no file of packet vectors");
    };
    if !needs_root(NAME) {
        return;
    }
    let report = vectors::run(Path::new(&file), true).unwrap();
    println!("{report}");
    assert!(report.is_good(), "{report}");
}
