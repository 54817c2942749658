//! A source of packages on this machine whose server goes away in the middle of a package: the connection ends, or
//! nothing comes any more.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

/// What becomes of the connection once half of the package was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Ends,
    /// Open, and silent.
    Stalls,
}

/// The package's name.
pub const PACKAGE: &str = "half";

/// Starts a server with one package of 2 MiB, and gives the line of sources.list for it. It ends with the tests.
pub fn serve(then: Then) -> String {
    let folder = tempfile::tempdir().unwrap();
    let package = build(folder.path());
    let digest = bakehouse::cloud::Digest::of(&package).hex();
    let list = format!(
        "Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
         Description: for a test\nFilename: ./{PACKAGE}.deb\nSize: {}\nSHA256: {digest}\n\n",
        package.len()
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (list, package) = (list.clone(), package.clone());
            // A client that went away is no failure of the server's.
            std::thread::spawn(move || answer(stream, list.as_bytes(), &package, then).is_ok());
        }
    });
    format!("deb [trusted=yes] http://127.0.0.1:{port}/ ./")
}

fn build(folder: &Path) -> Vec<u8> {
    let (tree, deb) = (folder.join("tree"), folder.join("half.deb"));
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: for a test\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    crate::yard::foreign::noise(&tree.join("noise"), 2 << 20);
    let built = Command::new("dpkg-deb")
        .args(["--build", "--root-owner-group"])
        .args([&tree, &deb])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::read(deb).unwrap()
}

/// Answers one connection, on which apt asks for one file after another.
fn answer(mut stream: TcpStream, list: &[u8], package: &[u8], then: Then) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        for header in lines.by_ref() {
            if header?.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let found = |bytes: &[u8]| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        if path.ends_with("/Packages") {
            stream.write_all(found(list).as_bytes())?;
            stream.write_all(list)?;
        } else if path.ends_with(".deb") {
            stream.write_all(found(package).as_bytes())?;
            stream.write_all(&package[..package.len() / 2])?;
            stream.flush()?;
            if then == Then::Stalls {
                // Until the client has had enough.
                let _ = lines.next();
            }
            return Ok(());
        } else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
    Ok(())
}
