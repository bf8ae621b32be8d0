//! The backup disk: what `/etc/crypttab` and `/etc/fstab` say of it; unlocking, mounting and
//! undoing both.

pub(crate) mod mount;
pub(crate) mod tables;
