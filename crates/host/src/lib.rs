//! rubelet-host

pub mod tuning;
