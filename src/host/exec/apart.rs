//! What a program does not get from the process that starts it: other descriptors than its three streams, the terminal, and
//! where it is asked for the means to change the machine's kernel. Runs between fork and exec, where only system calls may be
//! made: nothing here takes memory or a lock.

use std::io;
use std::os::unix::process::CommandExt;

use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities};

/// The first descriptor that is no stream.
const FIRST: libc::c_uint = 3;
/// Kernels before 5.11 cannot close all at once: as many are looked at then as processes usually may have open.
const USUAL: libc::c_uint = 4096;

/// What changes the machine that a program runs on rather than its files: kernel modules, raw memory and ports, the clock,
/// the network's settings, a reboot, the kernel's log. Root in a container has none of them either, so packages do without.
const OF_THE_MACHINE: [CapabilitySet; 8] = [
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_TIME,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::SYSLOG,
    CapabilitySet::WAKE_ALARM,
    CapabilitySet::BLOCK_SUSPEND,
];

/// How far apart a program is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    /// It has a session of its own, and so no terminal into which it could type what another reads.
    pub session: bool,
    /// It can never get [`OF_THE_MACHINE`].
    pub machine: bool,
}

impl Apart {
    #[expect(unsafe_code, reason = "the standard library has no other way to run what must run before exec")]
    pub fn keep(self, command: &mut std::process::Command) {
        // SAFETY: `enter` makes system calls only.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    fn enter(self) -> io::Result<()> {
        close_on_exec();
        if self.session {
            rustix::process::setsid()?;
        }
        if self.machine {
            let own = capabilities(None)?;
            let mut sets = own;
            for capability in OF_THE_MACHINE {
                // What is inheritable, as in containers of some engines, root gets by exec whatever the bound.
                sets.inheritable.remove(capability);
                match remove_capability_from_bounding_set(capability) {
                    // A kernel that does not know one, and a process that may not give any away: it has none either.
                    Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if sets != own {
                set_capabilities(None, sets)?;
            }
        }
        Ok(())
    }
}

/// Whatever this process opens itself is closed on exec already; what it was started with may not be.
#[expect(unsafe_code, reason = "neither rustix nor the standard library has these calls for numbers alone")]
fn close_on_exec() {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: the call sets a flag of descriptors, and no descriptor is used.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flag) } == 0 {
        return;
    }
    for number in FIRST..USUAL {
        // SAFETY: as above; one that is not open is an error, which means nothing.
        unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
