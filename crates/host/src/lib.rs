//! rubelet-host
