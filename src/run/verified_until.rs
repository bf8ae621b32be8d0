//! Moves the time until which a snapshot is known to equal the live tree.

use crate::decide::grade::Grade;
use crate::decide::transfer_verdict::TransferVerdict;
use crate::run::attempt::{Observation, SnapshotAttempt};
use crate::store::layout::Subdir;
use crate::store::record::Record;
use crate::store::snapshots::ListedSnapshot;
use crate::tell::error::Result;

impl SnapshotAttempt<'_> {
    /// Moves the newest complete snapshot's `verified_until` if the tree equals that snapshot,
    /// whatever else this run does.
    pub(crate) fn keep_current(
        &self,
        newest: Option<&ListedSnapshot>,
        observation: &Observation,
        verdict: &TransferVerdict,
    ) -> Result<()> {
        let may_move = verdict.lets_verified_until_move(observation.differs_from_complete);
        match newest.filter(|_| may_move) {
            Some(newest) => self.move_verified_until(newest),
            None => Ok(()),
        }
    }

    fn move_verified_until(&self, item: &ListedSnapshot) -> Result<()> {
        if item.unreadable {
            // The record cannot be read. Each listing warns of it, and it must not be overwritten.
            return Ok(());
        }
        let adopted = || Record::adopted(item.name.time, item.name.grade);
        let mut record = item.record.clone().unwrap_or_else(adopted);
        let mut clock = self.clock_history.borrow_mut();
        let until = match clock.doubt() {
            // This may move the time backwards: a time in the future came from a wrong clock.
            None => self.now,
            // Which of the two times is wrong is not known. The later one keeps the snapshot
            // longer.
            Some(_) => record.verified_until.max(self.now),
        };
        if let Some(sequence) = record.sequence {
            clock.note_verified_in_doubt(sequence);
        }
        if record.verified_until == until {
            return Ok(());
        }
        record.verified_until = until;
        let records = self.session.root.subdir(Subdir::Records)?;
        record.write_before_sync(records.dir(), &item.name.text)?;
        self.unsynced_records.set(Some(records));
        Ok(())
    }

    /// Corrects a `verified_until` in the future before the snapshot gets a successor. A wrong
    /// clock wrote it, and once the successor is gone, the older snapshot would stand for states
    /// that it never equalled.
    pub(crate) fn correct_verified_until(&self) -> Result<()> {
        if self.clock_history.borrow().doubt().is_some() {
            return Ok(());
        }
        let newest = self.list.newest(Grade::Complete, self.now);
        match newest.filter(|item| item.snapshot().verified_until > self.now) {
            Some(newest) => self.move_verified_until(newest),
            None => Ok(()),
        }
    }
}
