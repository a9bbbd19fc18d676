//! Development tasks of the project: regenerate generated code, check the tree.
fn main() {}
