//! The build of CodeBuild that this process runs in, if it runs in one: where its source is, and what it says of it.

use std::path::{Path, PathBuf};

use crate::pipeline::CodeBuild;
use crate::plan::{BuildSource, Source};
use crate::recipe;

/// The build, as the environment has it.
#[must_use]
pub fn of_environment() -> Option<CodeBuild> {
    CodeBuild::of(std::env::vars_os())
}

/// The folder that is meant: the one that was `given`, else this one. In a build whose commands have gone elsewhere the
/// source's folder is meant, where this one has no recipe.
#[must_use]
pub fn folder(given: Option<&Path>, build: Option<&CodeBuild>) -> PathBuf {
    let here = Path::new(".");
    let source =
        build.and_then(|build| build.source.as_deref()).filter(|_| !here.join(recipe::FILE).exists());
    given.or(source).unwrap_or(here).to_owned()
}

/// What a build tells of its source and of the pipeline that started it.
#[must_use]
pub fn source(build: &CodeBuild) -> Source {
    Source {
        commit: build.commit().map(str::to_owned),
        version: build.version().map(str::to_owned),
        pipeline: build.pipeline().map(str::to_owned),
        pipeline_execution: None,
        build: Some(BuildSource {
            id: build.id.clone(),
            arn: build.arn.clone(),
            url: build.url.clone(),
            initiator: build.initiator.clone(),
        }),
    }
}

/// The build's other sources that have a recipe: for whoever looked for one in the wrong folder.
#[must_use]
pub fn others_with_a_recipe(build: &CodeBuild) -> Option<String> {
    let others = build.secondary.iter().filter(|(_, folder)| folder.join(recipe::FILE).is_file());
    let named: Vec<String> = others.map(|(name, folder)| format!("{name} ({})", folder.display())).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_meant_and_else_the_source() {
        let build = CodeBuild { source: Some("/src".into()), ..CodeBuild::default() };
        // The tests run in a folder without a recipe.
        assert_eq!(folder(None, Some(&build)), Path::new("/src"));
        assert_eq!(folder(Some(Path::new("web")), Some(&build)), Path::new("web"));
        assert_eq!(folder(None, Some(&CodeBuild::default())), Path::new("."));
        assert_eq!(folder(None, None), Path::new("."));
    }

    #[test]
    fn a_source_with_a_recipe_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let build = CodeBuild {
            secondary: [("App", "app"), ("Site", "site")]
                .map(|(name, folder)| (name.to_owned(), dir.path().join(folder)))
                .into(),
            ..CodeBuild::default()
        };
        assert_eq!(others_with_a_recipe(&build), None);
        std::fs::create_dir(dir.path().join("site")).unwrap();
        std::fs::write(dir.path().join("site/bake.yml"), "").unwrap();
        assert_eq!(
            others_with_a_recipe(&build),
            Some(format!("Site ({})", dir.path().join("site").display()))
        );
    }
}
