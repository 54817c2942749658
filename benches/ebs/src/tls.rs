//! A certificate for 127.0.0.1, made anew by openssl, with its authority's for the clients to trust.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What the endpoint serves with, and the file with the authority that clients trust.
pub fn make(folder: &Path) -> anyhow::Result<(Arc<ServerConfig>, PathBuf)> {
    std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let run = |args: &[&[&str]]| {
        let made = Command::new("openssl").current_dir(folder).args(args.concat()).output()?;
        if !made.status.success() {
            bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(())
    };
    run(&[
        &["req", "-x509", "-subj", "/CN=bench authority", "-days", "2"],
        &key,
        &["-keyout", "ca.key", "-out", "ca.pem"],
    ])?;
    run(&[&["req", "-subj", "/CN=127.0.0.1"], &key, &["-keyout", "own.key", "-out", "own.csr"]])?;
    run(&[&[
        "x509",
        "-req",
        "-in",
        "own.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "extensions",
        "-out",
        "own.pem",
    ]])?;
    let chain = CertificateDer::pem_file_iter(folder.join("own.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("own.key")).context("own.key")?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok((Arc::new(config), folder.join("ca.pem")))
}
