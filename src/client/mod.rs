//! `rsync-system-backup`: the other end of the wire. On the machine that is backed up it makes the
//! backup disk ready, runs rsync with the right options, takes and rotates snapshots where there is
//! no daemon that does, and tells the desktop.
//!
//! A successor of the Python program of that name, with its command line. What decides is pure
//! ([`location`], [`tables`], [`rsync`], [`options`]); what acts runs other programs ([`external`])
//! and undoes what it did to the disk ([`disk`]). [`backup`] is the order of the steps.

pub mod backup;
pub mod check;
pub mod disk;
pub mod external;
pub mod failure;
pub mod job;
pub mod location;
pub mod notify;
pub mod place;
pub mod platform;
pub mod programs;
pub mod rsync;
pub mod safety;
pub mod signals;
pub mod snapshots;
