//! What an image from scratch needs so that it is set up by cloud-init on EC2, and on any machine with a NoCloud seed.
//! Files of ours only, beside those that cloud-init's package brings, so that its updates ask nothing.

use std::io;

use super::root::RootError;
use crate::host::root_dir::RootDir;

/// After 90_dpkg.cfg, in which Debian's package keeps its own list of data sources.
const SETTINGS: &str = "/etc/cloud/cloud.cfg.d/95_bakehouse.cfg";

/// Two data sources and no more: ds-identify finds the one that is there from the machine's DMI data (Ec2) or a disk
/// labelled `cidata` (NoCloud) before cloud-init starts, and nothing waits for the others. `None` makes cloud-init
/// set up ssh host keys and the disk where neither is there; with `strict_id` the wait for EC2's metadata (2 minutes)
/// is left out on machines whose DMI data is not EC2's.
///
/// C.UTF-8 because no other locale is made in the image, and cloud-config fails on one that is missing. The package
/// sources are the recipe's business. RSA host keys take seconds of a small instance's boot, and no client of the last
/// ten years needs them.
const CONTENT: &str = "\
# Written by Bakehouse.
datasource_list: [NoCloud, Ec2, None]
locale: C.UTF-8
ssh_pwauth: false
ssh_genkeytypes: [ed25519, ecdsa]
apt:
  preserve_sources_list: true
datasource:
  Ec2: { strict_id: true }
growpart:
  mode: auto
  devices: ['/']
resize_rootfs: true
";

/// ds-identify otherwise decides at boot whether cloud-init runs at all: without a data source it would not, and an
/// image without ssh host keys would have no sshd.
const IDENTIFY: &str = "/etc/cloud/ds-identify.cfg";
const POLICY: &str = "policy: search,found=all,maybe=none,notfound=enabled\n";

/// Writes cloud-init's settings into a root that has the package.
///
/// # Errors
/// Where the root has no cloud-init, or a file cannot be written.
pub fn set_up_cloud(root: &RootDir) -> Result<(), RootError> {
    if !root.exists("/etc/cloud") {
        let source = io::Error::new(io::ErrorKind::NotFound, "install the package cloud-init first");
        return Err(RootError::file("find", "/etc/cloud", source));
    }
    root.make_dirs("/etc/cloud/cloud.cfg.d", 0o755)
        .and_then(|()| root.write(SETTINGS, CONTENT.as_bytes(), 0o644))
        .map_err(|source| RootError::file("write", SETTINGS, source))?;
    root.write(IDENTIFY, POLICY.as_bytes(), 0o644)
        .map_err(|source| RootError::file("write", IDENTIFY, source))
}
