//! The package list as a CycloneDX 1.5 document, `sbom.cdx.json`: what scanners such as Inspector's `ScanSbom` read.

use serde_json::{Value, json};

use super::Record;
use crate::provision::{InstalledPackage, PackageFormat, System};

/// The document. Each package has a package URL (github.com/package-url/purl-spec, types `deb` and `rpm`).
#[must_use]
pub fn cyclonedx(record: &Record) -> Value {
    let system = record.system.clone().unwrap_or_default();
    let components: Vec<Value> = record
        .packages
        .iter()
        .map(|package| {
            let purl = purl(package, &system);
            json!({
                "type": "library",
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "purl": purl,
            })
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": record.created,
            "tools": { "components": [{ "type": "application", "name": "bakehouse", "version": record.written_by }] },
            "component": { "type": "operating-system", "name": record.name, "version": record.bake },
        },
        "components": components,
    })
}

/// An epoch is a part of a .deb's version, and of an rpm's a qualifier.
fn purl(package: &InstalledPackage, system: &System) -> String {
    let format = system.packages.unwrap_or(PackageFormat::Deb);
    let (epoch, version) = match (format, package.version.split_once(':')) {
        (PackageFormat::Rpm, Some((epoch, version))) => (format!("&epoch={}", encoded(epoch)), version),
        _ => (String::new(), package.version.as_str()),
    };
    let distro = match (system.distribution.as_str(), system.release.as_str()) {
        ("", _) => String::new(),
        (distribution, "") => format!("&distro={}", encoded(distribution)),
        (distribution, release) => format!("&distro={}-{}", encoded(distribution), encoded(release)),
    };
    format!(
        "pkg:{}/{}/{}@{}?arch={}{distro}{epoch}",
        format.extension(),
        encoded(&system.distribution),
        encoded(&package.name),
        encoded(version),
        encoded(&package.architecture)
    )
}

/// Percent-encoding of a package URL's parts: all but letters, digits and `.-_~`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_urls_of_their_kind() {
        let mut record = crate::image::record::tests::record();
        let url = |record: &Record| cyclonedx(record)["components"][0]["purl"].as_str().unwrap().to_owned();
        assert_eq!(url(&record), "pkg:deb/debian/a@1%3A2-3?arch=amd64&distro=debian-12");
        record.system = Some(System {
            distribution: "amzn".into(),
            release: "2023.6.20241212".into(),
            packages: Some(PackageFormat::Rpm),
        });
        assert_eq!(url(&record), "pkg:rpm/amzn/a@2-3?arch=amd64&distro=amzn-2023.6.20241212&epoch=1");
    }
}
