//! VPCs of the local cloud: it has none. Its one network is QEMU's, which is always there.

use async_trait::async_trait;

use super::place::LocalPlace;
use super::refusal::Refusal;
use crate::cloud::{
    Interface, NewPart, PartChange, PartId, PartKind, PartQuery, Result, Tags, VpcPart, Vpcs,
};

#[derive(Debug)]
pub(super) struct LocalVpcs(pub(super) LocalPlace);

impl LocalVpcs {
    fn unknown(&self, operation: &'static str, what: &str) -> crate::cloud::CloudError {
        let refusal = Refusal::not_found("NotFound", format!("there is no {what}"));
        refusal.into_error(operation, &self.0.place)
    }
}

#[async_trait]
impl Vpcs for LocalVpcs {
    async fn create(&self, new: &NewPart, _: &Tags) -> Result<PartId> {
        let text = "the local cloud has one network, which is always there; none is made";
        Err(Refusal::invalid("UnsupportedOperation", text).into_error(new.operation(), &self.0.place))
    }

    async fn find(&self, _: PartKind, _: &PartQuery) -> Result<Vec<VpcPart>> {
        Ok(Vec::new())
    }

    async fn change(&self, change: &PartChange) -> Result<()> {
        Err(self.unknown(change.operation(), "part of a VPC"))
    }

    async fn tag(&self, ids: &[PartId], _: &Tags) -> Result<()> {
        match ids.first() {
            Some(id) => Err(self.unknown("CreateTags", id.as_str())),
            None => Ok(()),
        }
    }

    async fn delete(&self, id: &PartId) -> Result<()> {
        Err(self.unknown(id.kind().deletion(), id.as_str()))
    }

    async fn interfaces(&self, _: &PartId) -> Result<Vec<Interface>> {
        Ok(Vec::new())
    }
}
