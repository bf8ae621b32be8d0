//! What `check` and `status` find about one module: by its runs, its root, and rsyncd.conf.

use std::cell::Cell;

use crate::command::check_surroundings::{Surroundings, of_section};
use crate::command::config_findings;
use crate::command::doctor::by_user::OfAnotherUser;
use crate::command::doctor::writing;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::module_findings::{
    denied, last_attempt, last_failure, place_of_root, policy_trouble, without_repetition,
};
use crate::command::root_findings::{self, RootFacts, RootSurroundings};
use crate::config::refused_push::offers_only_reading;
use crate::module::target::{FoundHistory, Target};
use crate::store::expected_pushes::NotedPushes;
use crate::system::process_io;
use crate::tell::error::Error;

/// The findings about a module and its root, without those about rsyncd.conf.
pub(crate) fn check_without_conf(target: &Target) -> Vec<Finding> {
    let around = Surroundings {
        others: target.other_modules(),
        noted: NotedPushes::of(&target.memory),
        rsyncd: None,
        ended_with_23: Cell::new(false),
        told_mistakes: Vec::new(),
    };
    check_module(target, &around, &|_| ())
}

/// What is known of a module's root.
pub(crate) enum SeenRoot<'a> {
    Itself(&'a RootFacts<'a>),
    /// As a `check` by the user says whose root it is.
    ByItsUser(Box<OfAnotherUser>),
}

/// The findings about a module and its root. `note` is called with what is known of the root, if
/// it can be read and the module is to have snapshots.
pub(crate) fn check_module(
    target: &Target,
    around: &Surroundings,
    note: &dyn Fn(SeenRoot),
) -> Vec<Finding> {
    let critical = |id, message: String| Finding::new(id, Severity::Critical, message);
    let module = around.module_of(target);
    let access = around.doctor().and_then(|doctor| doctor.root_access(module, target));
    let only_reads = module.is_some_and(offers_only_reading);
    let FoundHistory { is_registered, lost: lost_history } = target.look_for_history();
    let has_history = is_registered || lost_history.is_some();
    let is_own = access.is_none() && (has_history || !only_reads);
    let note_own = |facts: &RootFacts| {
        if is_own {
            note(SeenRoot::Itself(facts));
        }
    };
    // What a newer version wrote is not understood here, so nothing else about it is told.
    let found = match of_root(target, around, &note_own) {
        Err(error @ Error::Newer { .. }) => {
            return vec![critical(FindingId::NewerVersion, error.to_string())];
        }
        found => found,
    };
    let mut findings: Vec<Finding> = of_section(module, has_history, around).collect();
    if let Some(mut access) = access {
        findings.append(&mut access.findings);
        note(SeenRoot::ByItsUser(Box::new(access)));
        let doctor = around.doctor().zip(module);
        findings.extend(
            doctor.into_iter().flat_map(|(it, module)| it.rights(module, target, is_registered)),
        );
        return findings;
    }
    if let (Some(module), true, Some(time)) =
        (module, only_reads && !has_history, last_attempt(target))
    {
        findings.retain(|finding| finding.id != FindingId::ReadOnly);
        findings.push(writing::after_pushes(module, target, time));
        return findings;
    }
    if only_reads && !has_history {
        let is_told = findings.iter().any(|finding| finding.id == FindingId::ReadOnly);
        let message = "the module is read only, so no snapshots are made of it";
        let note = Finding::new(FindingId::ReadOnly, Severity::Ok, message);
        findings.extend((!is_told).then_some(note));
        return findings;
    }
    let nesting = target.check_nesting_among(&around.others, is_registered);
    let is_refused = nesting.is_err();
    if let Err(refusal) = nesting {
        let level = if only_reads { Severity::Warning } else { Severity::Critical };
        findings.push(Finding::new(FindingId::RootNested, level, refusal.to_string()));
    }
    let of_hooks = module.zip(around.doctor());
    if !of_hooks.is_some_and(|(module, doctor)| doctor.tells_missing_policy(module, target)) {
        findings.extend(policy_trouble(target, &around.told_mistakes));
    }
    findings.extend(last_failure(target));
    let lost_memory = target.lost_memory();
    findings.extend(
        lost_memory.map(|lost| Finding::new(FindingId::MemoryLost, Severity::Warning, lost)),
    );
    findings.extend(lost_history.map(|lost| critical(FindingId::RootLost, lost.to_string())));
    match found {
        Ok(mut found) => {
            // Where no root can be, its mode does not matter.
            let of_place = [FindingId::RootOpen, FindingId::RootNew];
            found.retain(|finding| !is_refused || has_history || !of_place.contains(&finding.id));
            findings.extend(found);
        }
        Err(error) => {
            let finding = denied(FindingId::Root, &error);
            let doubt = around.doctor().and_then(|doctor| doctor.doubt_of_owner(module, target));
            let end = place_of_root(target, &error) + &doubt.unwrap_or_default();
            let text = || format!("{error}{end}");
            findings.push(finding.unwrap_or_else(|| critical(FindingId::Root, text())));
        }
    }
    if let (Some(rsyncd), Some(module)) = (&around.rsyncd, module) {
        findings.extend(rsyncd.doctor.of_places(module, target, is_registered));
        let hooks = rsyncd.doctor.hooks(module);
        let doctor = &rsyncd.doctor;
        findings.extend(doctor.snapshot_directory_findings(&rsyncd.writers, module, target));
        findings.extend(config_findings::of_module(&rsyncd.writers, module, &hooks.pre, target));
    }
    without_repetition(findings)
}

fn of_root(
    target: &Target,
    around: &Surroundings,
    note: &dyn Fn(&RootFacts),
) -> Result<Vec<Finding>, Error> {
    let has_links = |path: &std::path::Path| around.doctor()?.has_links(path);
    let written = |pid: u32| match around.doctor() {
        Some(doctor) => doctor.bytes_written_below(pid),
        None => process_io::bytes_written_below(pid),
    };
    let module = around.module_of(target).zip(around.doctor());
    let of_root = RootSurroundings {
        has_links: &has_links,
        written: &written,
        noted: &around.noted,
        hook_fails: module.is_some_and(|(module, doctor)| doctor.hook_fails(module)),
        ended_with_23: Cell::new(false),
        note,
    };
    let found = root_findings::of_root(target, &of_root);
    if of_root.ended_with_23.get() {
        around.ended_with_23.set(true);
    }
    found
}
