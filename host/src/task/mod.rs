//! The loop: batch → decode → stages → effects → commit.
pub mod scheduler;
