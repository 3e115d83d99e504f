//! Proves, hop by hop, that an LVS-TUN path works, or shows where and why it does not.
//!
//! The modules stand in the order in which data travels, and each may use only those that
//! `tests/house.rs` lists for it. What each is stands in its own first line.

pub mod wire;

pub mod plan;

pub mod suite;

pub mod craft;

pub mod exchange;

pub mod matching;

pub mod evidence;

pub mod run;

pub mod verdict;

pub mod report;

pub mod agent;

pub mod live;

pub mod lab;

pub mod cli;
