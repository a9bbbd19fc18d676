//! What all objects of the API have.

use rubelet_api::Metadata;
use rubelet_api::meta::ObjectMeta;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

/// A kind of object that can be read, written and watched.
pub trait Object: Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Send + 'static {}

impl<T: Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + Send + 'static> Object for T {}

/// Decoded without what only the API server needs to know: `managedFields` are more than half of a pod.
pub(crate) struct Kept<T>(pub(crate) T);

impl<'de, T: Object> Deserialize<'de> for Kept<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = T::deserialize(deserializer)?;
        object.metadata_mut().managed_fields = None;
        Ok(Self(object))
    }
}
