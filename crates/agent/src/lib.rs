//! rubelet-agent

pub mod ledger;
pub mod probe;
pub mod sources;
#[cfg(test)]
mod testing;
