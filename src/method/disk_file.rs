//! Disk files that a user has or wants, raw or qcow2, and the raw file that everything works on.

use std::path::Path;

use super::BakeCause;
use crate::host::exec::Cmd;
use crate::host::stop::Stop;
use crate::plan::DiskFormat;

/// Writes what a user's file shows to the raw file `to`.
///
/// # Errors
/// [`BakeCause`]
pub async fn copy(file: &Path, format: DiskFormat, to: &Path, stop: &Stop) -> Result<(), BakeCause> {
    // A qcow2 file may name another file as its backing, any file of the host: it is opened without.
    let named = json(file)?;
    let source = match format {
        DiskFormat::Qcow2 => format!(
            "json:{{\"driver\":\"qcow2\",\"backing\":null,\"file\":{{\"driver\":\"file\",\"filename\":{named}}}}}"
        ),
        DiskFormat::Raw => {
            format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":{named}}}}}")
        }
    };
    Cmd::new("qemu-img").args(["convert", "-O", "raw"]).arg(source).arg(to).run(stop).await?;
    Ok(())
}

/// Writes a raw disk as the qcow2 file `to`.
///
/// # Errors
/// [`BakeCause`]
pub async fn pack(raw: &Path, to: &Path, stop: &Stop) -> Result<(), BakeCause> {
    Cmd::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([raw, to]).run(stop).await?;
    Ok(())
}

fn json(path: &Path) -> Result<serde_json::Value, BakeCause> {
    let text = path
        .to_str()
        .ok_or_else(|| BakeCause::Other { what: format!("{} is not UTF-8; rename it", path.display()) })?;
    Ok(text.into())
}
