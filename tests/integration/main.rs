//! Real peers as real processes on loopback: what users run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod concern;
mod description;
mod faults;
mod harness;
mod importing;
mod interop;
mod joining;
mod lan;
mod load;
mod memory;
mod patching;
mod profiles;
mod programs;
mod querying;
mod rot;
mod security;
mod survival;
mod terminal;
mod twice;
mod versions;
mod walkthrough;
