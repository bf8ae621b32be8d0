//! Both hooks: which snapshot a push brings, behind a real rsync daemon and with an environment
//! made by hand.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod arguments_understood;
mod ceph_attacks;
mod cephfs;
mod concurrency;
mod daemon;
mod daemon_failures;
mod dead_clients;
mod due;
mod environment;
mod in_place;
mod leases;
mod namespaces;
mod option_sweep;
mod pair;
mod partial_dirs;
mod registering;
mod second_server;
mod subvolumes;
mod temporaries;
mod torn;
mod unchanged;
mod verdict_model;
