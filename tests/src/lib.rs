//! The language of the end-to-end tests: programs, clients and clusters that are real and leave nothing behind.

pub mod browser;
mod program;

pub use program::{PATIENCE, Program, binary};
