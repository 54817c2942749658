//! Ubuntu.

use super::{Distribution, Keyring};

pub(super) struct Ubuntu;

impl Distribution for Ubuntu {
    fn name(&self) -> &'static str {
        "Ubuntu"
    }

    fn kernel(&self) -> &'static str {
        "linux-image-aws"
    }

    fn components(&self) -> &'static [&'static str] {
        &["main", "universe"]
    }

    fn keyring(&self) -> Keyring {
        Keyring {
            file: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
            package: "ubuntu-keyring (Debian: ubuntu-archive-keyring)",
        }
    }
}
