//! What comes out of a bake: the registered image and the record, `image.json`, that passes from stage to stage.

pub(crate) mod record;
mod register;
mod sbom;

pub use record::{BaseRecord, Disk, FORMAT, ImagePlace, Record, RecordError, TestRecord, environment};
pub use register::{RegisterError, check_billing, draft, register};
pub use sbom::cyclonedx;
