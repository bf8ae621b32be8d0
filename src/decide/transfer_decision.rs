//! The verdict: whether a snapshot of a module's tree is made now and of which grade, which failed
//! pushes are still to be made up for, and whether a snapshot stays due.
//!
//! This is the one place where that is decided. The rest of the program gathers [`VerdictFacts`],
//! asks for a verdict at three stages, and carries it out:
//!
//! 1. when a transfer has ended, before its hook waits for anything: the torn mark is set or
//!    cleared;
//! 2. before the tree is read: whether the snapshot is left to a push that is still running;
//! 3. after the tree was compared, and again after it was cloned: the grade, the torn mark, the due
//!    mark.
//!
//! At each later stage more is known, and the new facts can only lower a grade: a mark that
//! appeared or a backup that began meanwhile makes partial what would have been complete.
//!
//! The laws, each of them asserted over all combinations of facts by the tests below:
//!
//! * Only a transfer that wrote tears the module. A transfer that was refused, or that left the
//!   tree as the comparison before it found it, tears nothing; every other failed transfer does.
//! * Only a push that covers a failed one and heals its directories makes up for it, see
//!   [`torn_mark`](crate::decide::torn_mark). A tree that equals the newest complete snapshot is no
//!   mixture, except after writes in place, which change no names or inode numbers.
//! * A snapshot is complete only if no mark is left, no push is running, the ledger saw every push,
//!   and the client says nothing against it.
//! * No snapshot is put off for ever: one that the administrator asks for is not put off at all,
//!   every other one for at most `max_defer`.

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::failed_push::{FailedPush, TornMarkFacts};
use crate::decide::grade::Grade;
use crate::decide::torn_mark::TornMark;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::transfer_verdict::{DueMarkChange, TransferVerdict};
use crate::decide::verdict_facts::*;

/// Whether a snapshot that was put off at `since` has been put off for at least `max`. Also true if
/// `since` lies in the future: a wrong clock noted it, and the snapshot must not wait for ever.
pub fn has_waited(since: Option<DateTime<Utc>>, now: DateTime<Utc>, max: TimeDelta) -> bool {
    let waited = since.map_or(TimeDelta::zero(), |since| now - since);
    waited >= max || waited < TimeDelta::zero()
}

/// The status of a transfer and the snapshot that it allows, if the daemon reports `status`. If the
/// client says that something could not be transferred, the client's word counts.
pub fn end_of_transfer(
    status: i32,
    completion: ClientCompletion,
    statuses: Statuses,
) -> (i32, AllowedSnapshot) {
    match (AllowedSnapshot::of_status(status, Reporter::Daemon, statuses), completion) {
        (AllowedSnapshot::Complete, ClientCompletion::Partial) => (
            PARTIAL_TRANSFER,
            AllowedSnapshot::of_status(PARTIAL_TRANSFER, Reporter::Client, statuses),
        ),
        (allowed, _) => (status, allowed),
    }
}

/// The grade of a tree of which only the client's word is known: how the transfer ended, and how
/// far the backup has come.
pub fn grade_alone(status: i32, completion: ClientCompletion, statuses: Statuses) -> Grade {
    let allowed = AllowedSnapshot::of_status(status, Reporter::Client, statuses);
    if allowed == AllowedSnapshot::Complete && completion.allows_complete(statuses) {
        Grade::Complete
    } else {
        Grade::Partial
    }
}

/// The torn mark and the change of the due mark that a run writes once a verdict is carried out.
/// `facts` holds the marks as they are then: other runs may have added to them meanwhile.
pub fn marks_after(
    facts: &VerdictFacts,
    carried_out: &TransferVerdict,
) -> (Option<TornMark>, DueMarkChange) {
    (marks(facts), due_mark_change(facts, carried_out))
}

/// The verdict on these facts.
pub fn verdict(facts: &VerdictFacts) -> TransferVerdict {
    let marks = marks(facts);
    let (snapshot, because) = match grade(facts, marks.as_ref()) {
        Ok((grade, because)) => (Some(grade), because),
        Err(because) => (None, because),
    };
    let verdict = TransferVerdict { snapshot, because, marks, due_mark: DueMarkChange::Keep };
    TransferVerdict { due_mark: due_mark_change(facts, &verdict), ..verdict }
}

/// The torn mark that is left, with this transfer in it if it failed.
fn marks(facts: &VerdictFacts) -> Option<TornMark> {
    let existing = facts.torn.cloned();
    match facts.stage {
        VerdictStage::BeforeComparison => existing,
        VerdictStage::Compared(look) => {
            let is_alone = facts.has_pre_xfer && facts.running.count == 0;
            let mark_facts = TornMarkFacts {
                is_whole: is_alone && look.differs_from_complete == Some(false),
                is_alone,
                ended_well: facts.occasion.is_good_transfer(),
                without_ledger: facts.coverage == LedgerCoverage::None,
            };
            existing.and_then(|mark| mark.after_look(look.failed_pushes, mark_facts))
        }
        VerdictStage::Ended { now, noticed, unfinished } => {
            let Occasion::Transfer(transfer) = facts.occasion else { return existing };
            if transfer.wrote_nothing().is_some() {
                return existing;
            }
            match (transfer.allowed, transfer.push) {
                (AllowedSnapshot::Complete, Some(push)) => {
                    existing.and_then(|mark| mark.after_good_push(push, unfinished))
                }
                (AllowedSnapshot::Complete, None) => existing,
                (AllowedSnapshot::Partial | AllowedSnapshot::None, push) => {
                    let tear = push.map(|push| FailedPush::of(push, noticed.clone()));
                    let mark = TornMark::new(now, transfer.status, noticed.clone(), tear);
                    Some(mark.merged_with(existing.as_ref()))
                }
            }
        }
    }
}

/// The grade and the reason for it, or the reason why there is no snapshot.
fn grade(
    facts: &VerdictFacts,
    marks: Option<&TornMark>,
) -> Result<(Grade, TransferReason), TransferReason> {
    if let Occasion::Transfer(transfer) = facts.occasion {
        if let Some(how) = transfer.wrote_nothing() {
            return Err(TransferReason::NothingWritten { how });
        }
        let is_left =
            transfer.brought_unfinished && facts.completion == ClientCompletion::Unfinished;
        if is_left && transfer.allowed == AllowedSnapshot::Complete {
            return Err(TransferReason::LeftToClient);
        }
    }
    let is_patient = !matches!(facts.occasion, Occasion::ByHand);
    if facts.running.count > 0 && is_patient && !facts.has_waited {
        return Err(TransferReason::LeftToPushes { count: facts.running.count });
    }
    let by_occasion = grade_of_occasion(facts)?;
    let (grade, because) = match by_occasion {
        (Grade::Complete, because) => match obstacle(facts, marks) {
            Some(obstacle) => (Grade::Partial, obstacle),
            None => (Grade::Complete, because),
        },
        partial => partial,
    };
    match facts.stage {
        VerdictStage::Compared(look) => after_look(facts, &look, grade, because, marks),
        VerdictStage::Ended { .. } | VerdictStage::BeforeComparison => Ok((grade, because)),
    }
}

/// The grade that the occasion alone allows, as if nothing else had ever happened in the module.
fn grade_of_occasion(facts: &VerdictFacts) -> Result<(Grade, TransferReason), TransferReason> {
    match facts.occasion {
        Occasion::ByHand => Ok((Grade::Complete, TransferReason::AskedFor)),
        Occasion::Due { asked: Asked::GoodTransfer, is_of_this_boot: false } => {
            Ok((Grade::Partial, TransferReason::Restarted))
        }
        Occasion::Due { asked, .. } => Ok((asked.grade(), TransferReason::Due)),
        Occasion::Transfer(TransferEnd { allowed, status, .. }) => match allowed {
            AllowedSnapshot::Complete => Ok((Grade::Complete, TransferReason::EndedWell)),
            AllowedSnapshot::Partial => Ok((Grade::Partial, TransferReason::Failed { status })),
            AllowedSnapshot::None if facts.has_deferred => {
                Ok((Grade::Partial, TransferReason::OthersLeft { status }))
            }
            AllowedSnapshot::None => Err(TransferReason::Failed { status }),
        },
    }
}

/// What keeps a snapshot from being complete.
fn obstacle(facts: &VerdictFacts, marks: Option<&TornMark>) -> Option<TransferReason> {
    let RunningPushes { count, in_place } = facts.running;
    if facts.coverage == LedgerCoverage::TransferMissing {
        Some(TransferReason::NotInLedger)
    } else if count > 0 {
        Some(TransferReason::Running { count, in_place })
    } else if !facts.completion.allows_complete(facts.statuses) {
        Some(match facts.completion {
            ClientCompletion::Partial => TransferReason::ClientPartial,
            _ => TransferReason::ClientUnfinished,
        })
    } else {
        marks.map(|mark| TransferReason::Torn { pushes: mark.requests() })
    }
}

fn after_look(
    facts: &VerdictFacts,
    look: &TreeComparison,
    grade: Grade,
    because: TransferReason,
    marks: Option<&TornMark>,
) -> Result<(Grade, TransferReason), TransferReason> {
    // Without the ledger, a listing looks like a good push. If such a transfer changed nothing
    // since a failure, the tree is still what the failed push left. A push that the ledger knows
    // did write.
    let is_known_push =
        matches!(facts.occasion, Occasion::Transfer(TransferEnd { push: Some(_), .. }));
    let is_unchanged_since_failure = marks
        .filter(|mark| mark.has_only_unknown_client() || facts.coverage == LedgerCoverage::None)
        .is_some_and(|mark| !mark.is_changed(look.failed_pushes));
    let is_transfer = matches!(facts.occasion, Occasion::Transfer(_));
    let is_torn = matches!(because, TransferReason::Torn { .. });
    if is_torn
        && facts.occasion.is_good_transfer()
        && is_unchanged_since_failure
        && is_transfer
        && !is_known_push
    {
        return Err(TransferReason::StillTorn);
    }
    match grade {
        Grade::Complete if look.differs_from_complete == Some(false) => {
            Err(TransferReason::Unchanged { grade })
        }
        Grade::Complete if look.is_too_soon_for_complete => Err(TransferReason::TooSoon),
        Grade::Partial if look.differs_from_newest == Some(false) => {
            Err(TransferReason::Unchanged { grade })
        }
        Grade::Partial if look.is_too_soon_for_partial => Err(TransferReason::TooSoon),
        Grade::Complete | Grade::Partial => Ok((grade, because)),
    }
}

fn due_mark_change(facts: &VerdictFacts, verdict: &TransferVerdict) -> DueMarkChange {
    let asked = facts.occasion.asked();
    let marked = |reason, asked: Option<Asked>| {
        asked.map_or(DueMarkChange::Keep, |asked| DueMarkChange::Set { reason, asked })
    };
    match &verdict.because {
        TransferReason::LeftToPushes { .. } => marked(DueReason::Deferred, asked),
        // If the client never comes back, a snapshot of the part that it has sent is due.
        TransferReason::LeftToClient => marked(DueReason::Deferred, Some(Asked::FailedTransfer)),
        TransferReason::TooSoon => {
            marked(DueReason::MinInterval, asked.or(Some(Asked::FailedTransfer)))
        }
        _ => match (facts.stage, facts.due) {
            (VerdictStage::Compared(_), Some(due)) if satisfies_due_mark(facts, &due, verdict) => {
                DueMarkChange::Clear
            }
            _ => DueMarkChange::Keep,
        },
    }
}

/// Whether the verdict brings the snapshot that the due mark asks for.
fn satisfies_due_mark(facts: &VerdictFacts, due: &Due, verdict: &TransferVerdict) -> bool {
    // A torn or unfinished tree allows only a partial snapshot. The push that makes up for the
    // failure brings a snapshot of its own.
    let is_torn = verdict.marks.is_some() || facts.completion == ClientCompletion::Unfinished;
    let is_by_ledger = matches!(due.reason, DueReason::Deferred | DueReason::Interrupted);
    let is_due = matches!(facts.occasion, Occasion::Due { .. });
    let allows_only_partial = is_torn && (is_by_ledger || is_due) || due.is_of_earlier_boot;
    let wanted = if allows_only_partial && facts.running.count == 0 {
        Grade::Partial
    } else {
        due.asked.grade()
    };
    !due.is_newer_than_look && verdict.covered().is_some_and(|covered| covered >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::boot_time::BootTime;
    use crate::decide::failed_push::{LedgerPush, UnfinishedDirectories};
    use crate::decide::fingerprint::Fingerprint;
    use crate::decide::push_job::PushJob;
    use crate::decide::torn_mark::TornEvidence;

    const STATUSES: Statuses = Statuses { complete: &[0, 24], partial: &[12] };

    fn at(second: i64) -> BootTime {
        BootTime { boot: "this".to_string(), nanoseconds: second * 1_000_000_000 }
    }

    fn push(client: &str, second: i64, in_place: bool) -> LedgerPush {
        let extending_options =
            vec!["delete".to_string(), "recursive".to_string(), "times".to_string()];
        let job =
            PushJob { extending_options, options_hash: "h".to_string(), ..PushJob::default() };
        LedgerPush {
            client: client.to_string(),
            request: "data/".to_string(),
            began: at(second),
            began_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(second),
            sequence: u64::try_from(second).ok(),
            job: Some(job),
            in_place,
            only_deletes: false,
        }
    }

    /// The marks of pushes that failed at 10 seconds, and none.
    fn marks() -> Vec<Option<TornMark>> {
        let mark = |push: Option<&LedgerPush>| {
            let tear = push.map(|push| FailedPush::of(push, at(11)));
            Some(TornMark::new(DateTime::UNIX_EPOCH + TimeDelta::seconds(11), 12, at(11), tear))
        };
        let (by_a, in_place) = (push("user a", 10, false), push("user a", 10, true));
        vec![None, mark(None), mark(Some(&by_a)), mark(Some(&in_place))]
    }

    /// Calls `check` with each combination of the facts that matter.
    fn each(mut check: impl FnMut(&VerdictFacts)) {
        let marks = marks();
        let pushes = [None, Some(push("user b", 20, false)), Some(push("user b", 20, true))];
        let started = at(21);
        let times = UnfinishedDirectories::default();
        let mut occasions = vec![Occasion::ByHand];
        for asked in [Asked::FailedTransfer, Asked::ByHand, Asked::GoodTransfer] {
            for is_of_this_boot in [false, true] {
                occasions.push(Occasion::Due { asked, is_of_this_boot });
            }
        }
        for push in &pushes {
            for (status, allowed) in [
                (0, AllowedSnapshot::Complete),
                (12, AllowedSnapshot::Partial),
                (1, AllowedSnapshot::None),
            ] {
                for (is_no_push, forbidden) in
                    [(false, None), (true, None), (false, Some(Forbidden::ReadOnly))]
                {
                    for brought_unfinished in [false, true] {
                        let push = push.as_ref();
                        let transfer = TransferEnd {
                            allowed,
                            status,
                            push,
                            is_no_push,
                            forbidden,
                            brought_unfinished,
                        };
                        occasions.push(Occasion::Transfer(transfer));
                    }
                }
            }
        }
        let last = at(9);
        for torn in &marks {
            for unchanged_since in [None, Some(&last)] {
                let evidence = TornEvidence {
                    mark_before: torn.as_ref(),
                    unchanged_since,
                    unfinished: &[],
                    fingerprint: Fingerprint::default(),
                    newest_ctime_ns: 15_000_000_000,
                    ended: DateTime::UNIX_EPOCH + TimeDelta::seconds(22),
                };
                let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(21);
                let mut stages = vec![
                    VerdictStage::BeforeComparison,
                    VerdictStage::Ended { now, noticed: &started, unfinished: &times },
                ];
                for differs_from_complete in [None, Some(false), Some(true)] {
                    for differs_from_newest in [None, Some(false), Some(true)] {
                        for is_too_soon in [false, true] {
                            stages.push(VerdictStage::Compared(TreeComparison {
                                failed_pushes: &evidence,
                                differs_from_complete,
                                differs_from_newest,
                                is_too_soon_for_complete: is_too_soon,
                                is_too_soon_for_partial: is_too_soon,
                            }));
                        }
                    }
                }
                for stage in stages {
                    for occasion in &occasions {
                        each_fact(*occasion, stage, torn.as_ref(), &mut check);
                    }
                }
            }
        }
    }

    fn each_fact(
        occasion: Occasion,
        stage: VerdictStage,
        torn: Option<&TornMark>,
        check: &mut impl FnMut(&VerdictFacts),
    ) {
        use ClientCompletion::{Done, Partial, Unfinished};
        use LedgerCoverage::{All, None as Without, TransferMissing};
        for (coverage, has_pre_xfer) in
            [(All, true), (TransferMissing, true), (Without, false), (All, false)]
        {
            for (count, has_waited) in [(0, false), (0, true), (1, false), (1, true)] {
                for completion in [Done, Partial, Unfinished] {
                    for has_deferred in [false, true] {
                        check(&VerdictFacts {
                            occasion,
                            stage,
                            coverage,
                            has_pre_xfer,
                            running: RunningPushes { count, in_place: false },
                            has_waited,
                            has_deferred,
                            completion,
                            torn,
                            due: None,
                            statuses: STATUSES,
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn a_complete_snapshot_has_nothing_against_it() {
        let mut complete = 0;
        each(|facts| {
            let verdict = verdict(facts);
            if verdict.snapshot != Some(Grade::Complete) {
                return;
            }
            complete += 1;
            assert_eq!(verdict.marks, None, "{facts:?}");
            assert_eq!(facts.running.count, 0, "{facts:?}");
            assert_ne!(facts.coverage, LedgerCoverage::TransferMissing, "{facts:?}");
            assert!(facts.completion.allows_complete(STATUSES), "{facts:?}");
            assert!(facts.occasion.asked().is_some_and(|asked| asked.grade() == Grade::Complete));
            let is_old = matches!(
                facts.occasion,
                Occasion::Due { asked: Asked::GoodTransfer, is_of_this_boot: false }
            );
            assert!(!is_old, "{facts:?}");
        });
        assert!(complete > 1_000, "{complete}");
    }

    #[test]
    fn what_wrote_nothing_leaves_and_makes_nothing() {
        each(|facts| {
            let Occasion::Transfer(transfer) = facts.occasion else { return };
            if transfer.wrote_nothing().is_none() {
                return;
            }
            let verdict = verdict(facts);
            assert_eq!(verdict.snapshot, None, "{facts:?}");
            assert!(matches!(verdict.because, TransferReason::NothingWritten { .. }), "{facts:?}");
            if matches!(facts.stage, VerdictStage::Ended { .. }) {
                assert_eq!(verdict.marks.as_ref(), facts.torn, "{facts:?}");
            }
        });
    }

    #[test]
    fn what_failed_and_may_have_written_tears() {
        each(|facts| {
            let (Occasion::Transfer(transfer), VerdictStage::Ended { .. }) =
                (facts.occasion, facts.stage)
            else {
                return;
            };
            if transfer.allowed != AllowedSnapshot::Complete && transfer.wrote_nothing().is_none() {
                assert!(verdict(facts).marks.is_some(), "{facts:?}");
            }
        });
    }

    #[test]
    fn writes_in_place_are_mended_by_no_look() {
        each(|facts| {
            let was_in_place = facts.torn.is_some_and(TornMark::is_in_place);
            let is_compared = matches!(facts.stage, VerdictStage::Compared(_));
            if was_in_place && is_compared && facts.coverage != LedgerCoverage::None {
                assert!(verdict(facts).marks.is_some_and(|mark| mark.is_in_place()), "{facts:?}");
            }
        });
    }

    #[test]
    fn a_person_never_waits_and_others_not_for_ever() {
        each(|facts| {
            let is_left = matches!(verdict(facts).because, TransferReason::LeftToPushes { .. });
            let may_be_left = !matches!(facts.occasion, Occasion::ByHand) && !facts.has_waited;
            assert!(!is_left || may_be_left && facts.running.count > 0, "{facts:?}");
        });
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1);
        let hour = TimeDelta::hours(1);
        assert!(!has_waited(None, now, hour) && !has_waited(Some(now - hour / 2), now, hour));
        assert!(has_waited(Some(now - hour), now, hour));
        assert!(has_waited(Some(now + hour), now, hour), "a wrong clock");
    }

    #[test]
    fn whatever_stands_against_a_tree_only_lowers_its_grade() {
        each(|facts| {
            let covered = verdict(facts).covered();
            let better = VerdictFacts {
                running: RunningPushes::default(),
                completion: ClientCompletion::Done,
                ..*facts
            };
            let is_left = matches!(
                verdict(&better).because,
                TransferReason::StillTorn | TransferReason::TooSoon
            );
            assert!(is_left || covered <= verdict(&better).covered(), "{facts:?}");
        });
    }
}
