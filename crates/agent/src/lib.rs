//! rubelet-agent
