//! Trees: linked, compared, recycled, removed and verified, on all kinds of file systems.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod cost;
mod emlink;
mod equality;
mod filesystems;
mod full_disk;
mod index;
mod recycle;
mod unremovable;
mod verify;
