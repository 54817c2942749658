//! `bakehouse init [DIR] [--from EXAMPLE]`: writes a recipe to begin with. The examples are in the program, and are the
//! ones of the folder `examples`. Never overwrites anything.

use super::exit::{Failure, chain};
use super::print;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What `init` can write.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    pub name: &'static str,
    /// What it shows, in a few words.
    pub about: &'static str,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! file {
    ($path:literal) => {
        include_str!(concat!("../../examples/", $path))
    };
}

/// The first is what is written where none is named.
const EXAMPLES: &[Example] = &[
    Example {
        name: "os-base",
        about: "Debian from its packages: a foundation for other images",
        files: &[
            ("bake.yml", file!("quickstart/os-base/bake.yml")),
            ("buildspec.yml", file!("quickstart/buildspec.yml")),
        ],
    },
    Example {
        name: "web",
        about: "nginx and a page, on the family os-base",
        files: &[
            ("bake.yml", file!("quickstart/web/bake.yml")),
            ("rootfs/var/www/html/index.html", file!("quickstart/web/rootfs/var/www/html/index.html")),
            ("buildspec.yml", file!("quickstart/buildspec.yml")),
        ],
    },
    Example {
        name: "quickstart",
        about: "both of them, each in a folder of its own",
        files: &[
            ("README.md", file!("quickstart/README.md")),
            ("buildspec.yml", file!("quickstart/buildspec.yml")),
            ("os-base/bake.yml", file!("quickstart/os-base/bake.yml")),
            ("web/bake.yml", file!("quickstart/web/bake.yml")),
            ("web/rootfs/var/www/html/index.html", file!("quickstart/web/rootfs/var/www/html/index.html")),
        ],
    },
    Example {
        name: "codebuild-stage",
        about: "a stage of CodePipeline that bakes, with its project and its action",
        files: &[
            ("README.md", file!("codebuild-stage/README.md")),
            ("bake.yml", file!("codebuild-stage/bake.yml")),
            ("buildspec.yml", file!("codebuild-stage/buildspec.yml")),
            ("rootfs/var/www/html/index.html", file!("codebuild-stage/rootfs/var/www/html/index.html")),
        ],
    },
    Example {
        name: "existing-pipeline",
        about: "what to add to a pipeline that builds an application",
        files: &[
            ("README.md", file!("existing-pipeline/README.md")),
            ("bake.yml", file!("existing-pipeline/bake.yml")),
            ("buildspec.yml", file!("existing-pipeline/buildspec.yml")),
            (
                "rootfs/etc/systemd/system/app.service",
                file!("existing-pipeline/rootfs/etc/systemd/system/app.service"),
            ),
        ],
    },
];

/// Write an example to start from.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder; made where it is not there.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Which example.
    #[arg(long, value_name = "EXAMPLE")]
    from: Option<String>,
}

/// The verb.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let written =
        write_example(&args.dir, args.from.as_deref()).map_err(|error| Failure::Input(chain(&error)))?;
    print(&written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n"))
}

/// Everything that `init` can write.
#[must_use]
pub fn examples() -> &'static [Example] {
    EXAMPLES
}

/// Writes an example into a folder, which is made where it is not there, and gives the paths of its files.
///
/// # Errors
/// [`InitError::Exists`] where a file of that name is there; nothing is written then.
pub fn write_example(dir: &Path, from: Option<&str>) -> Result<Vec<PathBuf>, InitError> {
    let example = match from {
        None => &EXAMPLES[0],
        Some(name) => EXAMPLES.iter().find(|example| example.name == name).ok_or_else(|| unknown(name))?,
    };
    let targets: Vec<(PathBuf, &str)> =
        example.files.iter().map(|(path, text)| (dir.join(path), *text)).collect();
    let there: Vec<PathBuf> = targets
        .iter()
        // A link that leads nowhere counts too: writing would go through it.
        .filter(|(path, _)| path.symlink_metadata().is_ok())
        .map(|(path, _)| path.clone())
        .collect();
    if !there.is_empty() {
        return Err(InitError::Exists { paths: there });
    }
    for (path, text) in &targets {
        write(path, text).map_err(|source| InitError::Write { path: path.clone(), source })?;
    }
    Ok(targets.into_iter().map(|(path, _)| path).collect())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn unknown(name: &str) -> InitError {
    let names: Vec<&str> = EXAMPLES.iter().map(|example| example.name).collect();
    InitError::Unknown {
        name: name.to_owned(),
        hint: match crate::recipe::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", names.join(", ")),
        },
    }
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("no example is named `{name}`; {hint}")]
    Unknown { name: String, hint: String },
    #[error("{} there already; move them away, or name another folder", listed(.paths))]
    Exists { paths: Vec<PathBuf> },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let is = if paths.len() == 1 { "is" } else { "are" };
    format!("{} {is}", paths.join(", "))
}
