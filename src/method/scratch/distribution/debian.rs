//! Debian.

use super::{Distribution, Keyring};

pub(super) struct Debian;

impl Distribution for Debian {
    fn name(&self) -> &'static str {
        "Debian"
    }

    fn kernel(&self) -> &'static str {
        "linux-image-cloud-amd64"
    }

    fn components(&self) -> &'static [&'static str] {
        &["main"]
    }

    fn keyring(&self) -> Keyring {
        Keyring { file: "/usr/share/keyrings/debian-archive-keyring.gpg", package: "debian-archive-keyring" }
    }
}
