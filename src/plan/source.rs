//! Where a recipe came from: its commit, and the build and pipeline that bake it. Owns what of that becomes a tag.

use serde::{Deserialize, Serialize};

use crate::cloud::{Tags, tag};

/// Characters of a tag's value (EC2).
const LONGEST_VALUE: usize = 256;

/// Where the recipe came from, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// The commit's id, in hexadecimal.
    pub commit: Option<String>,
    /// The source's version where that is no commit: the version id of an object in S3, an image's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The id of its execution.
    pub pipeline_execution: Option<String>,
    /// The build of CodeBuild that baked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSource>,
}

/// A build of CodeBuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BuildSource {
    /// `PROJECT:UUID`.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Its page in the console, with the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who started it: a user, or `codepipeline/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<String>,
}

impl Source {
    /// As tags. The record has all of it; what is longer than a tag's value may be is cut to what still names it, or left
    /// out: a part of a version would be taken for another one.
    pub(super) fn tags(&self) -> Tags {
        let fits = |value: &&String| value.chars().count() <= LONGEST_VALUE;
        let version = self.version.as_ref().filter(|_| self.commit.is_none());
        // The name of a project may have 255 characters, and the UUID behind it alone is unique.
        let build = self.build.as_ref().map(|build| match build.id.rsplit_once(':') {
            Some((_, uuid)) if !fits(&&build.id) => uuid.to_owned(),
            _ => build.id.clone(),
        });
        let named = [
            ("commit", self.commit.as_ref()),
            ("source-version", version),
            ("pipeline", self.pipeline.as_ref()),
            ("pipeline-execution", self.pipeline_execution.as_ref()),
            ("build", build.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.filter(fits)?)));
        named.map(|(name, value)| (tag(name), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(id: String) -> Source {
        let build = BuildSource { id, arn: None, url: None, initiator: None };
        Source { build: Some(build), ..Source::default() }
    }

    #[test]
    fn tags_keep_to_ec2s_limit() {
        let uuid = "4a2e5b1c-0d6f-4c3a-9f67-8b1d2e3f4a5b";
        let short = build(format!("web:{uuid}")).tags();
        assert_eq!(short[&tag("build")], format!("web:{uuid}"));
        let long = build(format!("{}:{uuid}", "p".repeat(255))).tags();
        assert_eq!(long[&tag("build")], uuid);
        let version = |length| Source { version: Some("v".repeat(length)), ..Source::default() }.tags();
        assert_eq!(version(256).len(), 1);
        assert!(version(257).is_empty());
        // A hundred characters are the longest name of a pipeline; they count as characters.
        let pipeline = Source { pipeline: Some("ä".repeat(256)), ..Source::default() };
        assert_eq!(pipeline.tags().len(), 1);
    }

    #[test]
    fn a_commit_says_more_than_a_version() {
        let both = Source { commit: Some("abcd".into()), version: Some("v1".into()), ..Source::default() };
        assert_eq!(both.tags().into_keys().collect::<Vec<_>>(), [tag("commit")]);
    }

    #[test]
    fn a_source_from_before_builds_were_named_is_read() {
        let old = r#"{ "commit": "abcd", "pipeline-execution": null }"#;
        let read: Source = serde_json::from_str(old).unwrap();
        assert_eq!(read, Source { commit: Some("abcd".into()), ..Source::default() });
    }
}
