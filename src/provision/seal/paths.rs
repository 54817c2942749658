//! What the seal removes by its path. One table, so that what an image loses can be read in one place.

use std::path::Path;

/// How much of what is at a path goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The file, link or folder.
    Whole,
    /// What is in the folder; packages own the folder.
    Content,
    /// What is in the folder, but for these names and what begins with a dot.
    ContentBut(&'static [&'static str]),
}

pub(super) const HOST_KEYS: &str = "ssh host keys";

/// What lets commands into a machine that runs: the keys by which an ssh server is known and lets in, and the folder by which
/// the parts of the SSM agent hand a command's answer on. What came in for the bake is no seal's to remove, and a recipe may
/// name it.
const WAYS_IN: [&str; 4] = ["/etc/ssh", "/root/.ssh", "/var/lib/amazon/ssm", "/var/lib/bakehouse"];

/// Whether removing `path` would take away some of what lets commands in.
pub(super) fn is_way_in(path: &Path) -> bool {
    WAYS_IN.iter().map(Path::new).any(|way| path.starts_with(way) || way.starts_with(path))
}

/// What it is, how much of it goes, and where it is.
pub(super) const PATHS: &[(&str, Kind, &[&str])] = &[
    // cloud-init makes new ones at first boot.
    (HOST_KEYS, Kind::Whole, &["/etc/ssh/ssh_host_*"]),
    // Two machines that start from one seed would share what they take for random.
    (
        "random seeds",
        Kind::Whole,
        &[
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
            "/var/lib/random-seed",
            "/boot/loader/random-seed",
            "/boot/efi/loader/random-seed",
            "/efi/loader/random-seed",
            // The key that systemd-creds encrypts with on this host.
            "/var/lib/systemd/credential.secret",
            "/var/lib/NetworkManager/secret_key",
        ],
    ),
    // As `cloud-init clean` does it, which keeps the seed too; scripts are put there by whoever made the image.
    ("cloud-init's state", Kind::ContentBut(&["seed", "scripts"]), &["/var/lib/cloud"]),
    (
        "network set up by cloud-init",
        Kind::Whole,
        &[
            "/etc/netplan/50-cloud-init.yaml",
            "/etc/network/interfaces.d/50-cloud-init*",
            "/etc/systemd/network/10-cloud-init-*",
            "/etc/NetworkManager/system-connections/cloud-init-*",
            "/etc/udev/rules.d/70-persistent-net.rules",
            "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
        ],
    ),
    (
        "DHCP leases",
        Kind::Whole,
        &[
            "/var/lib/dhcp/*.lease*",
            "/var/lib/dhclient/*",
            "/var/lib/dhcpcd/*.lease",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/NetworkManager/timestamps",
        ],
    ),
    (
        "registrations of agents",
        Kind::Whole,
        &[
            "/var/lib/amazon/ssm/*",
            "/var/lib/amazon/ec2",
            "/var/lib/ecs/data/*",
            "/opt/codedeploy-agent/deployment-root/*",
            "/opt/aws/amazon-cloudwatch-agent/var/*",
            "/opt/aws/amazon-cloudwatch-agent/logs/*",
            "/var/lib/ubuntu-advantage/private/*",
        ],
    ),
    (
        "package caches",
        Kind::Whole,
        &["/var/cache/apt/*.bin", "/var/cache/apt/archives/*.deb", "/var/cache/debconf/*-old"],
    ),
    // What dnf 4 and 5, yum and zypper fetched and made of it. What they remember (/var/lib/dnf, /etc/zypp) stays.
    (
        "package caches",
        Kind::Content,
        &["/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/yum", "/var/cache/zypp"],
    ),
    // By which mirrors count machines; they make new ones.
    ("ids of package managers", Kind::Whole, &["/var/lib/yum/uuid", "/var/lib/zypp/AnonymousUniqueId"]),
    (
        "package lists",
        Kind::Content,
        &["/var/cache/apt/archives/partial", "/var/lib/apt/lists/auxfiles", "/var/lib/apt/lists/partial"],
    ),
    // apt's own user owns the folder `partial`, and packages the other.
    ("package lists", Kind::ContentBut(&["partial", "auxfiles"]), &["/var/lib/apt/lists"]),
    (
        "files that programs keep beside those they changed",
        Kind::Whole,
        &[
            "/var/lib/dpkg/*-old",
            // Memory that Berkeley DB shares between processes, made anew by the first.
            "/var/lib/rpm/__db.*",
            // Inode numbers and times of the libraries: differs from bake to bake and is made anew.
            "/var/cache/ldconfig/aux-cache",
            "/etc/.pwd.lock",
            // The name servers of the host that installed the package.
            "/etc/.resolv.conf.systemd-resolved.bak",
        ],
    ),
    (
        "shell and tool histories",
        Kind::Whole,
        &[
            "/root/.bash_history",
            "/root/.zsh_history",
            "/root/.ash_history",
            "/root/.sh_history",
            "/root/.python_history",
            "/root/.mysql_history",
            "/root/.psql_history",
            "/root/.lesshst",
            "/root/.viminfo",
            "/root/.wget-hsts",
            "/root/.ansible",
            "/root/.cache",
            "/home/*/.bash_history",
            "/home/*/.zsh_history",
            "/home/*/.ash_history",
            "/home/*/.sh_history",
            "/home/*/.python_history",
            "/home/*/.mysql_history",
            "/home/*/.psql_history",
            "/home/*/.lesshst",
            "/home/*/.viminfo",
            "/home/*/.wget-hsts",
            "/home/*/.ansible",
            "/home/*/.cache",
        ],
    ),
    ("temporary files", Kind::Content, &["/tmp", "/var/tmp", "/run"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_way_in_is_one() {
        for way in
            ["/etc/ssh/ssh_host_rsa_key", "/var/lib/amazon/ssm/i-1", "/var/lib/amazon", "/var", "/root/.ssh"]
        {
            assert!(is_way_in(Path::new(way)), "{way}");
        }
        for other in ["/etc/sshd", "/var/lib/amazon/ec2", "/root/.cache", "/var/lib/cloud"] {
            assert!(!is_way_in(Path::new(other)), "{other}");
        }
    }
}
