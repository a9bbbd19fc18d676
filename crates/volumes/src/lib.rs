//! rubelet-volumes
