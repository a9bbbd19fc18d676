//! rubelet-proto
