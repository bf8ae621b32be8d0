//! `rsync-system-backup`: the other end of the wire. On the machine that is backed up it makes the
//! backup disk ready, runs rsync with the right options, takes and rotates snapshots where there is
//! no daemon that does, and tells the desktop.
//!
//! A successor of the Python program of that name, with its command line. What decides is pure
//! ([`location`], [`tables`], [`rsync`], [`options`]); what acts runs other programs ([`external`])
//! and undoes what it did to the disk ([`disk`]). [`backup`] is the order of the steps.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod disk;
pub(crate) mod external;
pub(crate) mod failure;
pub(crate) mod job;
pub(crate) mod location;
pub(crate) mod notify;
pub(crate) mod place;
pub(crate) mod platform;
pub(crate) mod programs;
pub(crate) mod rsync;
pub(crate) mod safety;
pub(crate) mod signals;
pub(crate) mod snapshots;
