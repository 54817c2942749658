//! The package list as a CycloneDX 1.5 document, `sbom.cdx.json`: what scanners such as Inspector's `ScanSbom` read.

use serde_json::{Value, json};

use super::Record;

/// `distribution` is the package URL's namespace (`debian`, `ubuntu`), `kind` its type (`deb`).
#[must_use]
pub fn cyclonedx(record: &Record, kind: &str, distribution: &str) -> Value {
    let components: Vec<Value> = record
        .packages
        .iter()
        .map(|package| {
            let purl = format!(
                "pkg:{kind}/{distribution}/{}@{}?arch={}",
                encoded(&package.name),
                encoded(&package.version),
                encoded(&package.architecture)
            );
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
    #[test]
    fn versions_with_epochs_are_encoded() {
        let document = super::cyclonedx(&crate::image::record::tests::record(), "deb", "debian");
        assert_eq!(document["components"][0]["purl"], "pkg:deb/debian/a@1%3A2-3?arch=amd64");
    }
}
