//! The capabilities that a running agent needs, and the end of all others and of ways to new ones.

use super::error::KernelError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_no_new_privs;

/// What is kept: maps and programs, interfaces and netlink, what the verifier asks for, and ports below 1024.
const KEPT: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_NET_BIND_SERVICE];

/// Gives up every other capability of this thread and of all threads that it starts from now on, and has no program that they
/// start get more.
pub fn give_up() -> Result<(), KernelError> {
    let held = caps::read(None, CapSet::Permitted).map_err(KernelError::Privileges)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| held.contains(capability)).collect();
    // What is effective has to be permitted, so it shrinks first.
    for (set, keep) in
        [(CapSet::Inheritable, &CapsHashSet::new()), (CapSet::Effective, &kept), (CapSet::Permitted, &kept)]
    {
        caps::set(None, set, keep).map_err(KernelError::Privileges)?;
    }
    set_no_new_privs().map_err(|errno| KernelError::NewPrivileges(errno.into()))
}
