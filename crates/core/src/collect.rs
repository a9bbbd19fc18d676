//! What lies on the node and is of no use any more.

pub mod images;
pub mod logs;
