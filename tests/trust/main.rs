//! What others can do: clients, local users, file systems that fail, a process that is killed.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod crash;
mod extreme;
mod fault;
mod garbage;
mod hostile;
mod nesting;
mod ordinary_user;
mod privilege;
mod repair;
mod restore;
mod roots;
mod setup;
