//! Provisioning on real roots: real namespaces, mounts, apt and Ansible.
//!
//! They need root, util-linux, e2fsprogs; those with apt also mmdebstrap, dpkg-deb and ansible-core.

mod apt;
mod chroot;
mod files;
mod kernels;
mod roots;
mod seal;
mod secrets;
mod steps;
