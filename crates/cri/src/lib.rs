//! rubelet-cri
