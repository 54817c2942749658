//! `bakehouse shell`: a shell in a throw-away child of an image, or in a root that a failed bake left.

use std::path::Path;

use super::exit::{Failure, chain};
use super::images;
use super::session::{self, Global, Mounts};
use super::throw_away::ThrowAway;
use crate::disk::tree::MountedTree;
use crate::host::exec::Cmd;
use crate::host::loop_device::Access;
use crate::host::stop::Stop;
use crate::ledger::Left;
use crate::method::keep;
use crate::provision::{ChrootOptions, ChrootRoot, Root, RootCommand};

/// Open a shell in a copy of an image that is thrown away afterwards, or in the root that a failed bake kept.
///
/// The shell runs as root in the image's file system, without booting it. Nothing of it is stored.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The image's id or name, or the id of a bake whose root was kept.
    image: String,
    /// A command to run instead of a shell.
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    if keep::is_bake(&args.image) {
        session::require_root()?;
        let kept = keep::find(&global.work(), &args.image).map_err(|error| Failure::Input(chain(&error)))?;
        let (root, _lock) = kept.enter(&global.work()).map_err(|error| Failure::Input(chain(&error)))?;
        return session::block_on(|stop| async move { ended(inside(&root, &args.command, &stop).await?) });
    }
    session::run(global, Mounts::Yes, |session| async move {
        let image = images::find(&args.image, &session).await?;
        let copy = ThrowAway::of(&image, &session, global).await?;
        let at = copy.work.root();
        std::fs::create_dir_all(&at)?;
        let tree = MountedTree::open(&copy.disk, &copy.layout, &at, Access::ReadWrite, &session.stop).await?;
        let code = inside(tree.path(), &args.command, &session.stop).await;
        let closed = tree.close(&Stop::never()).await;
        let left = Left::These(vec![copy.work.path().display().to_string()]);
        closed.map_err(|error| Failure::of(&error, left))?;
        copy.close()?;
        ended(code?)
    })
}

async fn inside(root: &Path, command: &[String], stop: &Stop) -> anyhow::Result<i32> {
    let mut options = ChrootOptions::new(root);
    options.hostname = "localhost".to_owned();
    let chroot = ChrootRoot::enter(options).await?;
    let shell = if chroot.dir().exists("/bin/bash") { "/bin/bash" } else { "/bin/sh" };
    let command = if command.is_empty() { vec![shell.to_owned(), "-l".to_owned()] } else { command.to_vec() };
    let mut entry = chroot.entry().unwrap_or_default().into_iter();
    let result = match entry.next() {
        Some(program) => {
            let words: Vec<_> = entry.collect();
            let command = RootCommand::new(command);
            let environment = command.environment();
            let cmd = environment
                .iter()
                .fold(
                    Cmd::new(program).args(words).args(&command.argv).apart_from_the_machine().clear_env(),
                    |cmd, (name, value)| cmd.env(name, value),
                )
                .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()));
            cmd.interactive(stop).await.map_err(anyhow::Error::from)
        }
        None => Err(Failure::Input("this root cannot be entered from here".to_owned()).into()),
    };
    chroot.leave().await?;
    Ok(result?.code)
}

fn ended(code: i32) -> anyhow::Result<()> {
    if code == 0 {
        return Ok(());
    }
    let message = format!("the shell ended with the exit code {code}");
    Err(Failure::Work { message, left: Left::Nothing }.into())
}
