//! What `status` prints: the documented JSON, and a table with lines below the modules that need
//! some.
//!
//! The table leaves out columns that are empty for all. On a terminal it fits into its lines: names
//! of modules are shortened at the front, and the lines below are cut. With `--verbose`, and in a
//! pipe, nothing is cut.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::command::check_view::POLICY;
use crate::command::finding::{Finding, Severity, mark_consequences};
use crate::command::finding_id::FindingId;
use crate::command::list_view::rfc3339;
use crate::command::module_numbers::space;
use crate::command::root_findings::RootFacts;
use crate::command::run_findings::why_due;
use crate::decide::duration_text::roughly;
use crate::decide::forecast::{Expiry, next_expiry};
use crate::decide::free_space::bytes_text;
use crate::decide::grade::Grade;
use crate::decide::lock_holder::LockHolder;
use crate::decide::push_history::PushHistory;
use crate::decide::rsync_status::RsyncStatus;
use crate::store::snapshots::ListedSnapshot;
use crate::tell::escape::escape_path;
use crate::tell::table::TextTable;
use crate::tell::terminal::shorten;

/// The status of a module.
#[derive(Serialize)]
pub(crate) struct StatusView {
    pub(crate) module: String,
    /// Whether it is a module, and not the policy file. A module may have that name.
    pub(crate) is_module: bool,
    /// The worst level of the findings.
    pub(crate) status: Severity,
    /// None if nothing is known of its root.
    root: Option<RootView>,
    /// The worst first.
    pub(crate) findings: Vec<Finding>,
}

/// What is known of a module's root.
#[derive(Default, Serialize)]
pub(crate) struct RootView {
    snapshot_root: Option<String>,
    newest_complete: Option<String>,
    verified_until: Option<String>,
    last_push: Option<PushView>,
    running_pushes: Vec<PushView>,
    lock_holder: Option<String>,
    lock_pid: Option<u32>,
    lock_phase: Option<String>,
    lock_since: Option<String>,
    due_since: Option<String>,
    due_because: Option<&'static str>,
    torn_since: Option<String>,
    torn_by: Vec<String>,
    pause: Option<String>,
    free_bytes: Option<u64>,
    total_bytes: Option<u64>,
    next_expiry: Option<String>,
    next_expiry_time: Option<String>,
    /// How old the newest complete snapshot is: the time since it equalled the module.
    #[serde(skip)]
    age: Option<String>,
    #[serde(skip)]
    expires: Option<String>,
}

/// A push that runs or has ended.
#[derive(Serialize)]
struct PushView {
    client: String,
    /// When it began, or ended.
    time: String,
    /// The process that serves it, while it runs.
    pid: Option<u32>,
    /// rsync's status, once it has ended.
    status: Option<i32>,
    meaning: Option<&'static str>,
    #[serde(skip)]
    ago: String,
}

impl RootView {
    pub(crate) fn of(facts: &RootFacts) -> Self {
        let RootFacts { target, root, examined, activity, history, torn, now } = *facts;
        let newest = examined.list.newest(Grade::Complete, now);
        let verified_until = newest.map(ListedSnapshot::verified_until);
        let holder = activity.holder();
        let run = holder.and_then(LockHolder::parse);
        let due = examined.state.due.as_ref();
        let pause = examined.decision.pause.as_ref();
        let space = space(root);
        let snapshots = || {
            let verdicts = examined.decision.verdicts.iter();
            verdicts.map(|verdict| verdict.snapshot.clone()).collect::<Vec<_>>()
        };
        let next = match pause {
            Some(_) => None,
            None => next_expiry(&snapshots(), &target.policy, now),
        };
        let time = match &next {
            Some((_, Expiry::At(time))) => Some(*time),
            _ => None,
        };
        let expires = match (pause, &next) {
            (Some(_), _) => Some("paused".to_string()),
            (None, Some(_)) => Some(time.map_or("due".to_string(), |time| roughly(time - now))),
            (None, None) => None,
        };
        RootView {
            snapshot_root: Some(escape_path(&root.path)),
            newest_complete: newest.map(|item| item.name.text.clone()),
            verified_until: verified_until.map(rfc3339),
            last_push: last_push(history, now),
            running_pushes: activity
                .pushes()
                .map(|stored| PushView {
                    client: stored.entry.as_ref().map_or(stored.who(), |it| it.client.label()),
                    time: rfc3339(stored.began),
                    pid: Some(stored.pid),
                    status: None,
                    meaning: None,
                    ago: roughly(now - stored.began),
                })
                .collect(),
            lock_holder: holder.map(str::to_string),
            lock_pid: run.as_ref().map(|run| run.pid),
            lock_since: run.as_ref().map(|run| rfc3339(run.since)),
            lock_phase: run.and_then(|run| run.phase),
            due_since: due.map(|due| rfc3339(due.since)),
            due_because: due.map(|due| why_due(due.reason)),
            torn_since: torn.map(|torn| rfc3339(torn.torn_since())),
            torn_by: torn.map(|torn| torn.requests()).unwrap_or_default(),
            pause: pause.map(ToString::to_string),
            free_bytes: space.map(|(free, _)| free),
            total_bytes: space.map(|(_, total)| total),
            next_expiry_time: time.map(rfc3339),
            next_expiry: next.map(|(name, _)| name),
            age: verified_until.map(|time| roughly(now - time)),
            expires,
        }
    }
}

/// The last push that ended, whether well or not.
fn last_push(history: &PushHistory, now: DateTime<Utc>) -> Option<PushView> {
    let good = history.last_good().map(|(who, time)| (who, time, 0));
    let failed = history.last_failed().map(|(who, end)| (who, end.time, end.status));
    let (who, time, status) = good.into_iter().chain(failed).max_by_key(|(_, time, _)| *time)?;
    Some(PushView {
        client: who.label(),
        time: rfc3339(time),
        pid: None,
        status: Some(status),
        meaning: RsyncStatus(status).meaning(),
        ago: roughly(now - time),
    })
}

impl StatusView {
    pub(crate) fn new(module: String, root: Option<RootView>, mut findings: Vec<Finding>) -> Self {
        mark_consequences(&mut findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let status = findings.first().map_or(Severity::Ok, |finding| finding.level);
        StatusView { module, is_module: true, status, root, findings }
    }

    /// What is told of the policy file.
    pub(crate) fn of_policy(findings: Vec<Finding>) -> Self {
        StatusView { is_module: false, ..StatusView::new(POLICY.to_string(), None, findings) }
    }

    /// The cells of its row, in the order of [`TITLES`].
    fn cells(&self) -> [Option<String>; TITLES.len()] {
        let unknown = RootView::default();
        let facts = self.root.as_ref().unwrap_or(&unknown);
        let push = facts.last_push.as_ref().map(|push| match push.status {
            Some(0) => format!("good {} ago", push.ago),
            _ => format!("failed {} ago", push.ago),
        });
        [
            Some(self.module.clone()),
            Some(self.status.word().to_string()),
            facts.newest_complete.clone(),
            facts.age.clone(),
            push,
            facts.free_bytes.map(bytes_text),
            facts.expires.clone(),
        ]
    }

    /// What the lines below its row say: what is wrong, and what is at work.
    fn notes(&self) -> impl Iterator<Item = &str> {
        let is_shown = |finding: &&Finding| {
            let is_at_work = matches!(finding.id, FindingId::RunningPush | FindingId::AtWork);
            finding.level != Severity::Ok || is_at_work
        };
        self.findings.iter().filter(is_shown).map(|finding| finding.message.as_str())
    }

    /// All that is known of it, in lines that are not cut.
    fn to_full_text(&self) -> String {
        let unknown = RootView::default();
        let facts = self.root.as_ref().unwrap_or(&unknown);
        let mut text = format!("{}: {}\n", self.module, self.status.word());
        let mut line = |title: &str, told: Option<String>| {
            let told = told.map(|told| format!("  {title:<16}  {told}\n"));
            text += &told.unwrap_or_default();
        };
        line("snapshots in", facts.snapshot_root.clone());
        let age = facts.age.as_ref().map(|age| format!(", equalled the module {age} ago"));
        let newest = facts.newest_complete.as_ref();
        line("newest complete", newest.map(|name| name.clone() + &age.unwrap_or_default()));
        let push = facts.last_push.as_ref().map(|push| match push.status {
            Some(status) if status != 0 => {
                format!("failed {} ago, of {}: {}", push.ago, push.client, RsyncStatus(status))
            }
            _ => format!("good, {} ago, of {}", push.ago, push.client),
        });
        line("last push", push);
        line("lock held by", facts.lock_holder.clone());
        let expiry = facts.next_expiry.as_ref().map(|name| match &facts.next_expiry_time {
            Some(time) => format!("{name} at {time}, if pushes continue as before"),
            None => format!("{name} with the next rotation"),
        });
        line("next expiry", expiry);
        let space = facts.free_bytes.zip(facts.total_bytes);
        line(
            "free space",
            space.map(|(free, total)| format!("{} of {}", bytes_text(free), bytes_text(total))),
        );
        for finding in self.findings.iter().filter(|finding| !finding.is_detail) {
            text += &format!("  {} - {}\n", finding.level.word(), finding.message);
        }
        text
    }
}

const TITLES: [&str; 7] =
    ["MODULE", "STATE", "NEWEST COMPLETE", "AGE", "LAST PUSH", "FREE", "NEXT EXPIRY"];

/// All that is known of each module.
pub(crate) fn to_full_text(views: &[StatusView]) -> String {
    views.iter().map(StatusView::to_full_text).collect::<Vec<_>>().join("\n")
}

/// The table, in lines of at most `line_width` characters if that is given.
pub(crate) fn to_text(views: &[StatusView], line_width: Option<usize>) -> String {
    if views.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = views.iter().map(StatusView::cells).collect();
    let is_used =
        |column: &usize| rows.iter().any(|row: &[Option<String>; 7]| row[*column].is_some());
    let columns: Vec<usize> = (0..TITLES.len()).filter(is_used).collect();
    let limit = line_width.unwrap_or(usize::MAX);
    let room = limit.saturating_sub(width(&rows, &columns[1..])).max(TITLES[0].len());
    for row in &mut rows {
        row[0] = row[0].take().map(|label| shorten(&label, room));
    }
    let titles: Vec<&str> = columns.iter().map(|column| TITLES[*column]).collect();
    let mut table = TextTable::new(&titles);
    for row in &mut rows {
        let cell = |column: &usize| row[*column].take().unwrap_or("-".to_string());
        table.push(columns.iter().map(cell).collect());
    }
    let lines = table.to_text(None);
    let mut lines = lines.lines();
    let mut text = lines.next().map(|line| format!("{line}\n")).unwrap_or_default();
    for (line, view) in lines.zip(views) {
        text += &format!("{line}\n");
        for note in view.notes() {
            text += &format!("  {}\n", without_end(note, limit - 2));
        }
    }
    text
}

/// How wide these columns of the table are, with the gap before each.
fn width(rows: &[[Option<String>; 7]], columns: &[usize]) -> usize {
    let of_column = |column: &usize| {
        let cells = rows.iter().filter_map(|row| row[*column].as_ref());
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(TITLES[*column].len()) + 2
    };
    columns.iter().map(of_column).sum()
}

/// The text, with an ellipsis for what does not fit at its end.
fn without_end(text: &str, columns: usize) -> String {
    match text.chars().count() > columns {
        false => text.to_string(),
        true => text.chars().take(columns - 1).chain("…".chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(module: &str, level: Severity, message: &str) -> StatusView {
        let finding = Finding::new(FindingId::Marks, level, message);
        let facts = RootView {
            newest_complete: Some("2026-11-22T19-08-31Z".to_string()),
            age: Some("10d".to_string()),
            free_bytes: Some(1_000 << 30),
            ..RootView::default()
        };
        StatusView::new(module.to_string(), Some(facts), vec![finding])
    }

    #[test]
    fn the_table_fits_eighty_columns_and_has_no_empty_column() {
        let long = "x".repeat(200);
        let views = [
            view(&format!("{long}end"), Severity::Critical, &long),
            view("laptop", Severity::Ok, "not told"),
        ];
        let text = to_text(&views, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("…xxx") && text.contains("end  CRITICAL"), "{text}");
        assert!(text.contains("  xxx") && text.contains("xxx…\n"), "{text}");
        assert!(!text.contains("LAST PUSH") && !text.contains("not told"), "{text}");
        assert!(to_text(&views, None).contains(&format!("  {long}\n")));
        let full = to_full_text(&views);
        assert!(full.contains(&format!("{long}end: CRITICAL\n")), "{full}");
        assert!(full.contains(&format!("  CRITICAL - {long}\n")), "{full}");
    }

    #[test]
    fn what_does_not_fit_is_replaced_by_an_ellipsis() {
        assert_eq!(shorten("näme", 4), "näme");
        assert_eq!(shorten("a näme", 4), "…äme");
        assert_eq!(without_end("näme", 4), "näme");
        assert_eq!(without_end("näme b", 4), "näm…");
    }
}
