//! Images: from a name to a file system.

pub mod document;
pub mod hosts;
pub mod reference;
