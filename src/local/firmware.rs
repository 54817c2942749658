//! The firmware that an image boots with: SeaBIOS, which comes with QEMU, or OVMF, which is found on this host.

use std::path::{Path, PathBuf};

use super::qemu::QemuError;
use crate::cloud::BootMode;

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

impl Firmware {
    /// The firmware for an image of boot mode `image` where `wish` is asked for. An image that allows both boots with
    /// UEFI unless told otherwise, as it does on nearly every instance type; one without a boot mode has legacy BIOS,
    /// as on Intel and AMD instances.
    ///
    /// # Errors
    /// Where the image does not allow what is asked for, in words.
    pub fn choose(image: Option<BootMode>, wish: Option<BootMode>) -> Result<Self, String> {
        let (own, both) = match image {
            None | Some(BootMode::LegacyBios) => (Self::Bios, false),
            Some(BootMode::Uefi) => (Self::Uefi, false),
            Some(BootMode::UefiPreferred) => (Self::Uefi, true),
        };
        let asked = match wish {
            None => return Ok(own),
            // `preferred` takes what there is.
            Some(BootMode::UefiPreferred) => return Ok(own),
            Some(BootMode::LegacyBios) => Self::Bios,
            Some(BootMode::Uefi) => Self::Uefi,
        };
        if asked == own || both {
            Ok(asked)
        } else {
            Err(format!("the image boots with {} only, not with {}", own.name(), asked.name()))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bios => "legacy BIOS",
            Self::Uefi => "UEFI",
        }
    }
}

/// OVMF's code and the empty variable store that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ovmf {
    pub code: PathBuf,
    pub variables: PathBuf,
}

/// Where distributions put OVMF without Secure Boot, best first: Debian and Ubuntu now, the same before 2023, Fedora.
const PLACES: [(&str, &str); 3] = [
    ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
];

impl Ovmf {
    /// Finds it below `root`, which is `/` but in tests.
    ///
    /// # Errors
    /// [`QemuError::NoOvmf`], which says what to install.
    pub fn find(root: &Path) -> Result<Self, QemuError> {
        PLACES
            .iter()
            .map(|(code, variables)| Self { code: root.join(code), variables: root.join(variables) })
            .find(|found| found.code.is_file() && found.variables.is_file())
            .ok_or(QemuError::NoOvmf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_decides_and_a_wish_chooses_where_it_allows_both() {
        use BootMode::{LegacyBios, Uefi, UefiPreferred};
        let choose = Firmware::choose;
        assert_eq!(choose(None, None), Ok(Firmware::Bios));
        assert_eq!(choose(Some(LegacyBios), None), Ok(Firmware::Bios));
        assert_eq!(choose(Some(Uefi), None), Ok(Firmware::Uefi));
        assert_eq!(choose(Some(UefiPreferred), None), Ok(Firmware::Uefi));
        assert_eq!(choose(Some(UefiPreferred), Some(LegacyBios)), Ok(Firmware::Bios));
        assert_eq!(choose(None, Some(UefiPreferred)), Ok(Firmware::Bios));
        assert!(choose(Some(Uefi), Some(LegacyBios)).is_err());
        assert!(choose(None, Some(Uefi)).is_err());
    }

    #[test]
    fn code_without_its_variables_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Ovmf::find(root.path()), Err(QemuError::NoOvmf)));
        let folder = root.path().join("usr/share/OVMF");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = Ovmf::find(root.path()).unwrap();
        assert_eq!(found.code, folder.join("OVMF_CODE.fd"));
    }
}
