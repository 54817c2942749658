//! A build of CodeBuild, as its environment tells it to what runs in it. Reads what it is given and nothing else; never
//! looks at a credential.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The folder of the primary source; with `_NAME` behind it, that of the source or input artifact NAME.
const FOLDER: &str = "CODEBUILD_SRC_DIR";
/// What a build's initiator begins with that a pipeline started.
const BY_PIPELINE: &str = "codepipeline/";
/// Digits of a commit's id: SHA-1 and SHA-256.
const COMMIT: [usize; 2] = [40, 64];

/// What a build is told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeBuild {
    /// `PROJECT:UUID`.
    pub id: String,
    pub arn: Option<String>,
    /// Its page in the console.
    pub url: Option<String>,
    /// A user's name, `ROLE/SESSION`, or `codepipeline/NAME`.
    pub initiator: Option<String>,
    /// The primary source's folder.
    pub source: Option<PathBuf>,
    /// What the primary source's version came to: a commit, the version id of an object in S3, an image's digest.
    pub resolved: Option<String>,
    /// The folders of all other sources, by their names.
    pub secondary: BTreeMap<String, PathBuf>,
}

impl CodeBuild {
    /// The build whose environment this is; `None` where it is none's. A variable that is empty is not set.
    #[must_use]
    pub fn of(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Option<Self> {
        let all: BTreeMap<OsString, OsString> =
            environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let text = |name: &str| {
            all.get(OsStr::new(&format!("CODEBUILD_{name}")))
                .and_then(|value| value.to_str())
                .map(str::to_owned)
        };
        let secondary = all.iter().filter_map(|(name, folder)| {
            let name = name.to_str()?.strip_prefix(FOLDER)?.strip_prefix('_')?;
            Some((name.to_owned(), folder.into()))
        });
        Some(Self {
            id: text("BUILD_ID")?,
            arn: text("BUILD_ARN"),
            url: text("BUILD_URL"),
            initiator: text("INITIATOR"),
            source: all.get(OsStr::new(FOLDER)).map(PathBuf::from),
            resolved: text("RESOLVED_SOURCE_VERSION"),
            secondary: secondary.collect(),
        })
    }

    /// The name of the pipeline that started it.
    #[must_use]
    pub fn pipeline(&self) -> Option<&str> {
        self.initiator.as_deref()?.strip_prefix(BY_PIPELINE)
    }

    /// The commit of its primary source. A source in S3 has none, and the object's version id in its place.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        self.resolved
            .as_deref()
            .filter(|version| COMMIT.contains(&version.len()) && version.bytes().all(digit))
    }

    /// The version of its primary source where that is no commit.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.resolved.as_deref().filter(|_| self.commit().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn of(all: &[(&str, &str)]) -> Option<CodeBuild> {
        CodeBuild::of(all.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn resolved(version: &str) -> CodeBuild {
        CodeBuild { resolved: Some(version.to_owned()), ..CodeBuild::default() }
    }

    #[test]
    fn a_build_of_a_pipeline_is_read() {
        let build = of(&[
            ("CODEBUILD_BUILD_ID", "web:4a2e"),
            ("CODEBUILD_BUILD_ARN", "arn:aws:codebuild:eu-west-1:123456789012:build/web:4a2e"),
            ("CODEBUILD_BUILD_URL", "https://console/build"),
            ("CODEBUILD_INITIATOR", "codepipeline/images"),
            ("CODEBUILD_SOURCE_VERSION", "arn:aws:s3:::bucket/images/Source/x.zip"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", COMMIT),
            ("CODEBUILD_SRC_DIR", "/codebuild/output/src1/src"),
            ("CODEBUILD_SRC_DIR_App", "/codebuild/output/src2/src"),
            ("CODEBUILD_SRC_DIR_site_data", "/codebuild/output/src3/src"),
            ("CODEBUILD_SRC_DIRECTORY", "/elsewhere"),
            ("AWS_REGION", "eu-west-1"),
        ])
        .unwrap();
        assert_eq!((build.id.as_str(), build.pipeline()), ("web:4a2e", Some("images")));
        assert_eq!((build.commit(), build.version()), (Some(COMMIT), None));
        assert_eq!(build.source, Some("/codebuild/output/src1/src".into()));
        let secondary = BTreeMap::from([
            ("App".to_owned(), "/codebuild/output/src2/src".into()),
            ("site_data".to_owned(), "/codebuild/output/src3/src".into()),
        ]);
        assert_eq!(build.secondary, secondary);
        assert!(build.arn.unwrap().ends_with("web:4a2e") && build.url.is_some());
    }

    #[test]
    fn what_is_not_set_or_empty_is_not_there() {
        assert_eq!(of(&[("CODEBUILD_SRC_DIR", "/src"), ("CODEBUILD_CI", "true")]), None);
        assert_eq!(of(&[("CODEBUILD_BUILD_ID", "")]), None);
        let build = of(&[
            ("CODEBUILD_BUILD_ID", "web:1"),
            ("CODEBUILD_INITIATOR", "deploy/ada"),
            ("CODEBUILD_RESOLVED_SOURCE_VERSION", ""),
            ("CODEBUILD_SRC_DIR_App", ""),
        ])
        .unwrap();
        assert_eq!((build.pipeline(), build.commit(), build.version()), (None, None, None));
        assert!(build.secondary.is_empty() && build.source.is_none());
    }

    #[test]
    fn an_objects_version_is_no_commit() {
        let sha256 = "ab".repeat(32);
        assert_eq!(resolved(&sha256).commit(), Some(sha256.as_str()));
        // A version id of S3, a digest of ECR, an abbreviated commit, a null version, a tag.
        for version in [
            "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY_MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
            "T1nn0OhmDQU7Y5Ec5q0X7T6OyQSgXsH8",
            "sha256:0123456789abcdef0123456789abcdef01234567",
            "0123456",
            "null",
            "v1.2",
        ] {
            let build = resolved(version);
            assert_eq!((build.commit(), build.version()), (None, Some(version)));
        }
        assert_eq!(resolved(&COMMIT.to_uppercase()).commit(), None);
    }

    /// What `bakehouse run` gives its commands is read as what a build of CodeBuild has.
    #[test]
    fn what_is_run_here_is_a_build_too() {
        use super::super::{Identity, Source, variables};
        let spec = serde_json::json!({ "version": "0.2", "phases": {} });
        let secondary = BTreeMap::from([("App".to_owned(), PathBuf::from("/app"))]);
        let source = Source {
            dir: "/src".into(),
            resolved: Some(COMMIT.into()),
            secondary: secondary.clone(),
            ..Source::default()
        };
        let started = jiff::Timestamp::from_millisecond(1).unwrap();
        let identity =
            Identity { id: "p:1".into(), arn: "arn:p".into(), number: 7, initiator: "me".into(), started };
        let none = BTreeMap::new();
        let all = variables([], &serde_json::from_value(spec).unwrap(), &none, &none, &source, &identity);
        let build = CodeBuild::of(all).unwrap();
        let right = CodeBuild {
            id: "p:1".into(),
            arn: Some("arn:p".into()),
            initiator: Some("me".into()),
            source: Some("/src".into()),
            resolved: Some(COMMIT.into()),
            secondary,
            ..CodeBuild::default()
        };
        assert_eq!(build, right);
    }
}
