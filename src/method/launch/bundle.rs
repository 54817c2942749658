//! What is sent to the instance: the bundle of a plan, and the secrets that its steps take.

use std::path::{Component, Path, PathBuf};

use base64::Engine;

use super::LaunchError;
use crate::method::Bench;
use crate::plan::{Input, Plan};
use crate::provision::{Bundle, BundleSecrets, Content, Entry};
use crate::recipe::Step;
use crate::report::can_hide;

/// Variables that mean the same on the instance, for steps with `aws: true`. The addresses by which a container has its
/// credentials do not, and would hide the instance's own profile, which such a step has without any of these.
const AWS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_STS_REGIONAL_ENDPOINTS",
];
/// Those of them that are told to nobody.
const HIDDEN: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Packs the steps with the files that they bring in, which may be large, into the work folder.
pub(super) fn pack(plan: &Plan, bench: &Bench) -> Result<PathBuf, LaunchError> {
    let mut entries = Vec::new();
    for (path, input) in &plan.inputs {
        entries.push(entry(path, input, &bench.recipe_dir)?);
    }
    let path = bench.work.path().join("bundle");
    let file =
        std::fs::File::create(&path).map_err(|source| LaunchError::File { path: path.clone(), source })?;
    Bundle::new(&plan.bake, &plan.steps, &plan.seal, entries).pack(&bench.recipe_dir, file)?;
    Ok(path)
}

fn entry(path: &str, input: &Input, folder: &Path) -> Result<Entry, LaunchError> {
    let at = folder.join(path);
    let content = match (&input.link, &input.sha256) {
        (Some(target), _) => Content::Link(target.clone()),
        (None, Some(_)) => {
            let about = std::fs::metadata(&at).map_err(|source| LaunchError::File { path: at, source })?;
            Content::File(about.len())
        }
        (None, None) => Content::Folder,
    };
    let numbers = |owner: &String| {
        let (user, group) = owner.split_once(':')?;
        Some((user.parse().ok()?, group.parse().ok()?))
    };
    Ok(Entry {
        path: path.to_owned(),
        // Made from a number by the plan.
        mode: u32::from_str_radix(&input.mode, 8).unwrap_or(0o644),
        owner: input.owner.as_ref().and_then(numbers),
        content,
    })
}

/// The variables and files that the steps take from where Bakehouse runs; `None` where they take none. All of them are
/// hidden from now on.
pub(super) fn secrets(plan: &Plan, bench: &Bench) -> Result<Option<BundleSecrets>, LaunchError> {
    let mut secrets = BundleSecrets::default();
    for (number, step) in plan.steps.iter().enumerate() {
        let Step::Shell(shell) = step else { continue };
        let refused = |name: &str, wrong: String| LaunchError::Secret {
            step: number + 1,
            name: name.to_owned(),
            wrong,
        };
        for (name, from) in &shell.secret_env {
            if let Some(variable) = &from.env {
                let value = bench.environment.get(variable).ok_or_else(|| {
                    refused(
                        name,
                        format!("takes the variable {variable}, which is not set where Bakehouse runs"),
                    )
                })?;
                can_hide(value).map_err(|why| {
                    refused(name, format!("takes the variable {variable}, whose content is {why}"))
                })?;
                bench.reporter.hide(value);
                secrets.environment.insert(variable.clone(), value.clone());
            }
            if let Some(file) = &from.file {
                // It lies at the same path in the bundle's folder there: any other would be a file of the image's own.
                if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
                    let why = format!(
                        "names {file}, which is outside of the recipe's folder: copy it there, or bring it in by a variable"
                    );
                    return Err(refused(name, why));
                }
                let at = bench.recipe_dir.join(file);
                let bytes = std::fs::read(&at).map_err(|source| LaunchError::File { path: at, source })?;
                let text = String::from_utf8_lossy(&bytes);
                can_hide(&text)
                    .map_err(|why| refused(name, format!("takes the file {file}, whose content is {why}")))?;
                bench.reporter.hide(&text);
                let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
                secrets.files.insert(file.clone(), encoded);
            }
        }
        if shell.aws {
            for (name, value) in bench.environment.iter().filter(|(name, _)| AWS.contains(&name.as_str())) {
                if HIDDEN.contains(&name.as_str()) {
                    bench.reporter.hide(value);
                }
                secrets.environment.insert(name.clone(), value.clone());
            }
        }
    }
    let none = secrets.environment.is_empty() && secrets.files.is_empty();
    Ok((!none).then_some(secrets))
}
