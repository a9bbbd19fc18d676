//! The metrics pages: what was counted where plans and outcomes pass, and what is read when somebody asks.

pub mod resource;
