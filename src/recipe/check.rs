//! `checks` and `boot`: what must hold of the image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// A check is a map with one key, its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Package(PackageCheck),
    File(FileCheck),
    Service(ServiceCheck),
    Port(PortCheck),
    Command(CommandCheck),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PackageCheck {
    pub name: String,
    /// `>=1.22`, `<2`, `=1.2-3`; by the package manager's own order. Unset: any.
    pub version: Option<String>,
    /// `true` (the default): it is there; `false`: it is not.
    pub installed: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileCheck {
    pub path: String,
    /// `true` (the default): it is there; `false`: it is not.
    pub exists: Option<bool>,
    /// Octal digits: `"0644"`.
    pub mode: Option<String>,
    /// `user` or `user:group`, as the image knows them, or numbers.
    pub owner: Option<String>,
    /// A text that stands in it.
    pub contains: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServiceCheck {
    pub name: String,
    /// Started at boot or not.
    pub enabled: Option<bool>,
    /// Active or not: only in the boot test.
    pub running: Option<bool>,
}

/// Something listens on a port: only in the boot test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortCheck {
    #[schemars(range(min = 1))]
    pub tcp: u16,
}

/// A command run as root in the booted image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CommandCheck {
    pub run: String,
    /// The exit code that it must have. Unset: 0.
    #[schemars(range(min = 0, max = 255))]
    pub exit: Option<i32>,
    /// What its standard output must be, without white space at its ends.
    pub stdout: Option<String>,
    /// A text that must stand in its standard output.
    pub contains: Option<String>,
}

/// The boot test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BootTest {
    /// How long from launch to the last check. Unset: 5 minutes.
    pub within: Option<Span>,
    /// For an image without cloud-init: a text on the console that says that it booted. Unset: the login prompt.
    pub console: Option<String>,
}
