//! rubelet-server
