//! Provisioning on real roots: real namespaces, mounts, apt and Ansible.
//!
//! They need root, util-linux, e2fsprogs; those with apt or SELinux also mmdebstrap, dpkg-deb and ansible-core; those with
//! dnf and zypper, which are in their roots, mmdebstrap, rpm and createrepo-c; those of rpm's lists python3 and db-util.

mod apt;
mod chroot;
mod files;
mod installed;
mod kernels;
pub mod machine;
mod repository;
pub mod roots;
mod rpm;
mod seal;
mod secrets;
mod selinux;
mod steps;
