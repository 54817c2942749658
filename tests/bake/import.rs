//! A base of another account: imported once, shared by every bake, and never taken away.

use std::path::PathBuf;

use bakehouse::cloud::{AccountId, Clouds, Image, ImageId, ImageQuery, Place};
use bakehouse::local::{LocalClouds, Sharing};
use serde_json::Value;

use crate::yard::Yard;
use crate::yard::small::recipe;

const VENDOR: &str = "111111111111";
const STEP: &str = "provision:\n  - shell: { run: 'echo made >/etc/made' }\n";

/// A yard with a small base in another account, and its id.
struct Foreign {
    yard: Yard,
    clouds: LocalClouds,
    vendor: Place,
    base: ImageId,
}

fn foreign(sharing: &Sharing) -> Option<Foreign> {
    let yard = Yard::small()?;
    let said = yard.bake("small", &["--account", VENDOR, "--out", "vendor-out"]).ok();
    let base = ImageId::parse(said.out.trim()).unwrap();
    let clouds = LocalClouds::open(&yard.store(), None, None).unwrap();
    let vendor = Place { account: AccountId::parse(VENDOR).unwrap(), ..clouds.home() };
    clouds.store().share(&vendor, &base, sharing).unwrap();
    for name in ["web", "app"] {
        yard.recipe(name, &recipe(name, &format!("{{ image: {base} }}"), STEP));
    }
    Some(Foreign { yard, clouds, vendor, base })
}

fn everybody() -> Sharing {
    Sharing { accounts: Vec::new(), storage: true }
}

impl Foreign {
    fn images(&self, at: &Place) -> Vec<Image> {
        let cloud = self.clouds.at(at).unwrap();
        block_on(cloud.images.find(&ImageQuery::default())).unwrap()
    }

    fn imports(&self) -> Vec<Image> {
        let mut own = self.images(&self.clouds.home());
        own.retain(|image| image.tags.get("bakehouse:import").is_some_and(|of| *of == self.base.to_string()));
        own
    }

    fn image(&self, id: &str) -> Image {
        self.images(&self.clouds.home()).into_iter().find(|image| image.id.as_str() == id).unwrap()
    }

    fn export(&self, image: &str) -> PathBuf {
        let to = self.yard.path().join(format!("{image}.raw"));
        self.yard.run(&["export", image, to.to_str().unwrap()]).ok();
        to
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_foreign_base_is_imported_once_and_every_later_bake_has_the_import() {
    let Some(foreign) = foreign(&everybody()) else { return };
    let yard = &foreign.yard;
    let plan = yard.run(&["plan", "web"]).ok();
    assert!(plan.out.contains(&format!("will import {} once", foreign.base)), "{}", plan.out);
    assert!(foreign.imports().is_empty(), "a plan made something");
    let web = yard.bake("web", &[]).ok();
    let imports = foreign.imports();
    assert_eq!(imports.len(), 1);
    let import = &imports[0];
    assert!(import.name.starts_with(&format!("bakehouse-import-{}-", foreign.base)), "{}", import.name);
    assert!(!import.tags.contains_key("bakehouse:expires"));
    assert!(import.tags["bakehouse:layout"].starts_with("ext4 on "), "{:?}", import.tags);
    // The record names the base and the import, and the parent is the import's snapshot.
    let record = yard.record("web");
    let base = &record["base"]["image"];
    assert_eq!(base["id"], foreign.base.as_str());
    assert_eq!(base["import"], import.id.as_str());
    assert_eq!(base["snapshot"], import.root().unwrap().1.as_str());
    assert_eq!(record["lineage"], serde_json::json!([foreign.base.as_str()]));

    let plan = yard.run(&["plan", "app"]).ok();
    assert!(plan.out.contains(&format!("{}, which is here already", import.id)), "{}", plan.out);
    yard.bake("app", &[]).ok();
    assert_eq!(foreign.imports().len(), 1);
    assert_eq!(yard.record("app")["base"]["image"]["import"], import.id.as_str());

    // All attributes are the base's, field by field.
    let vendors = foreign.images(&foreign.vendor).remove(0);
    let image = foreign.image(web.out.trim());
    let mut attributes = image.attributes.clone();
    attributes.devices[0].ebs.as_mut().unwrap().snapshot = vendors.root().map(|(_, id)| id.clone());
    assert_eq!(attributes, vendors.attributes);
    assert_eq!((image.usage_operation, image.platform), (vendors.usage_operation, vendors.platform));

    // `images` tells it from a bake's, and `sweep` leaves it alone.
    let listed = yard.run(&["images"]).ok();
    let line = listed.out.lines().find(|line| line.starts_with(import.id.as_str())).unwrap();
    assert!(line.ends_with(&format!("import of {}", foreign.base)), "{line}");
    yard.run(&["sweep"]).ok();
    assert_eq!(foreign.imports().len(), 1);
    yard.assert_nothing_left();
}

/// The file of the recipe's step is in the image, and everything else of it is the vendor's.
#[test]
fn the_bytes_are_the_bases_but_for_what_the_bake_changed() {
    let Some(foreign) = foreign(&everybody()) else { return };
    let web = foreign.yard.bake("web", &[]).ok();
    let import = foreign.imports().remove(0);
    let cloud = foreign.clouds.at(&foreign.clouds.home()).unwrap();
    let vendor = foreign.clouds.at(&foreign.vendor).unwrap();
    let theirs = foreign.images(&foreign.vendor).remove(0);
    let blocks = |cloud: &bakehouse::cloud::Cloud, image: &Image| {
        block_on(crate::conformance::read_all(cloud, image.root().unwrap().1))
    };
    let (base, copy) = (blocks(&vendor, &theirs), blocks(&cloud, &import));
    assert_eq!(base, copy);
    let made = blocks(&cloud, &foreign.image(web.out.trim()));
    let changed = made.iter().filter(|(index, digest)| base.get(index) != Some(digest)).count();
    let record: Value = foreign.yard.record("web");
    assert_eq!(record["disk"]["changed-blocks"], changed);
    assert!(changed > 0 && changed < base.len(), "{changed} of {}", base.len());
    let disk = std::fs::read(foreign.export(web.out.trim())).unwrap();
    assert!(disk.windows(5).any(|bytes| bytes == b"made\n"));
}

#[test]
fn two_bakes_at_once_make_one_import() {
    let Some(foreign) = foreign(&everybody()) else { return };
    // Both have looked for an import, and neither has made one.
    let begin = |name: &str| {
        let mut command = foreign.yard.command();
        command.args(["bake", name]).env("BAKEHOUSE_FAULT", "call:CopyImage#1:before:stop");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = ["web", "app"].map(begin);
    for child in &both {
        crate::faults::run::until_stopped(child.id());
    }
    let said = both
        .map(|child| std::thread::spawn(|| crate::faults::run::continued(child)))
        .map(|thread| thread.join().unwrap().ok());
    assert_eq!(said.len(), 2);
    let imports = foreign.imports();
    assert_eq!(imports.len(), 1);
    for name in ["web", "app"] {
        assert_eq!(foreign.yard.record(name)["base"]["image"]["import"], imports[0].id.as_str());
    }
    foreign.yard.assert_nothing_left();
}

/// Killed once the copy was asked for: the import stays, and is what the next bake uses.
#[test]
fn a_bake_that_is_killed_leaves_its_import_to_the_next() {
    let Some(foreign) = foreign(&everybody()) else { return };
    let yard = &foreign.yard;
    for moment in ["before", "after"] {
        let mut command = yard.command();
        command.args(["bake", "web"]).env("BAKEHOUSE_FAULT", format!("call:CopyImage#1:{moment}:kill"));
        assert_eq!(command.output().unwrap().status.code(), None);
        assert_eq!(foreign.imports().len(), usize::from(moment == "after"));
    }
    yard.run(&["sweep"]).ok();
    let before = foreign.imports().remove(0).id;
    yard.bake("web", &[]).ok();
    assert_eq!(foreign.imports().len(), 1);
    assert_eq!(yard.record("web")["base"]["image"]["import"], before.as_str());
    yard.assert_nothing_left();
}

/// A bake that fails afterwards takes its own things away, and not the import.
#[test]
fn a_failed_bake_leaves_the_import() {
    let Some(foreign) = foreign(&everybody()) else { return };
    let fails = "provision:\n  - shell: { run: 'exit 3' }\n";
    foreign.yard.recipe("web", &recipe("web", &format!("{{ image: {} }}", foreign.base), fails));
    let said = foreign.yard.bake("web", &[]).code(3);
    assert!(said.err.contains("nothing was left behind"), "{}", said.err);
    assert_eq!(foreign.imports().len(), 1);
    foreign.yard.assert_nothing_left();
}

#[test]
fn a_base_whose_storage_is_not_shared_is_refused_before_anything_is_made() {
    let Some(foreign) = foreign(&Sharing { accounts: Vec::new(), storage: false }) else { return };
    let direct = recipe("web", &format!("{{ image: {} }}", foreign.base), &format!("method: direct\n{STEP}"));
    foreign.yard.recipe("web", &direct);
    for verb in ["plan", "bake"] {
        let said = foreign.yard.run(&[verb, "web"]).code(2);
        for part in [foreign.base.as_str(), "cannot be copied", "method: launch"] {
            assert!(said.err.contains(part), "{part}: {}", said.err);
        }
    }
    assert!(foreign.images(&foreign.clouds.home()).iter().all(|image| image.name.starts_with("small-")));
}
