//! The order of a run: mark, lock, clean up, compare, publish, remember, rotate, unlock.
//!
//! * A failed transfer marks the root torn *before* it waits for the lock: whoever holds it sees
//!   the mark before it publishes.
//! * Nothing is retired before the new snapshot, or the proof that none is needed, is durable.
//! * The lock is released under the state's own lock after a look at the due mark: a run that
//!   gave up waiting is either seen by the holder or gets the lock itself.

mod hold;
mod rotate;
mod snapshot;

use chrono::{DateTime, Utc};

pub use rotate::{Rotated, look, rotate};

use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::grade::{Grade, Intent, Occasion};
use crate::store::boot::BootTime;
use crate::store::memory::Failure;
use crate::store::record::Client;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, DueReason, State, TornMark};
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;
use hold::{Hold, Released};

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub occasion: Occasion,
    /// The transfer's exit status, if there was one.
    pub status: Option<i32>,
    /// Who transferred, if anybody.
    pub client: Option<Client>,
    /// Do something only if a snapshot is due.
    pub only_if_due: bool,
    /// When the process that asks was started.
    pub started: BootTime,
}

impl Request {
    /// A person or a timer asks, at this moment.
    pub fn manual(only_if_due: bool) -> Self {
        Request {
            occasion: Occasion::Manual,
            status: None,
            client: None,
            only_if_due,
            started: BootTime::now(),
        }
    }

    /// A person asks for rotation alone.
    fn rotation() -> Self {
        Request { occasion: Occasion::Transfer(Intent::Nothing), ..Request::manual(false) }
    }

    /// A transfer has ended.
    pub fn transfer(intent: Intent, status: i32, client: Client) -> Self {
        Request {
            occasion: Occasion::Transfer(intent),
            status: Some(status),
            client: Some(client),
            only_if_due: false,
            started: BootTime::now(),
        }
    }

    /// The grade hoped for; none if the transfer earns no snapshot.
    fn hoped_grade(&self) -> Option<Grade> {
        match self.occasion {
            Occasion::Manual | Occasion::Transfer(Intent::Complete) => Some(Grade::Complete),
            Occasion::Transfer(Intent::Partial) => Some(Grade::Partial),
            Occasion::Transfer(Intent::Nothing) => None,
        }
    }
}

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A new snapshot is visible.
    Published,
    /// Nothing changed since the newest snapshot; it is verified until now.
    Unchanged,
    /// Another run, whose scan began after this one was asked for, has done the work.
    Covered,
    /// The module is torn and has not changed since: nothing to publish.
    Torn,
    /// The transfer failed and the policy wants no partial snapshot.
    FailedTransfer,
    /// Sooner than `min_interval`: the root is marked due.
    TooSoon,
    /// Only a due snapshot was asked for, and none is.
    NotDue,
}

impl Ending {
    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Published => "published",
            Ending::Unchanged => "unchanged",
            Ending::Covered => "covered",
            Ending::Torn => "torn",
            Ending::FailedTransfer => "failed-transfer",
            Ending::TooSoon => "too-soon",
            Ending::NotDue => "not-due",
        }
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// The snapshot that was published, or that stands unchanged.
    pub snapshot: Option<String>,
    /// Problems that did not stop it; each is in the log.
    pub warnings: Vec<String>,
    /// What rotation did, if it ran.
    pub rotated: Option<Rotated>,
    /// Whether the policy could not be used.
    pub policy_trouble: bool,
}

impl Report {
    fn new(ending: Ending) -> Self {
        Report { ending, snapshot: None, warnings: Vec::new(), rotated: None, policy_trouble: false }
    }

    /// Logs a problem that does not stop the run, and remembers it for the exit status.
    fn warn(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.warnings.push(message);
    }

    /// The exit status that tells it.
    pub fn exit(&self) -> Exit {
        match (self.policy_trouble, self.warnings.is_empty()) {
            (true, _) => Exit::Usage,
            (false, false) => Exit::Warnings,
            (false, true) => Exit::Done,
        }
    }
}

/// Takes a snapshot of `target` if the request earns one, and rotates.
///
/// # Errors
/// If the work could not be done; what was already visible is untouched.
pub fn run(target: &Target, request: &Request, clock: &Clock) -> Result<Report> {
    let result = run_in_root(target, request, clock);
    remember(target, &result);
    result
}

fn run_in_root(target: &Target, request: &Request, clock: &Clock) -> Result<Report> {
    let root = target.open_root()?;
    mark_before_lock(target, &root, request, clock.exact_now())?;
    if request.only_if_due && State::read(root.private())?.due.is_none() {
        return Ok(Report::new(Ending::NotDue));
    }
    crate::priority::lower(&target.policy);
    let hold = Hold::acquire(target, &root, request, clock)?;
    if hold.is_covered(&root, request)? {
        log::info!("{}: covered by a run whose scan began later", target.label());
        return Ok(Report::new(Ending::Covered));
    }
    work(target, &root, request.clone(), clock, hold)
}

/// Works under the lock, again for whoever gave up waiting meanwhile.
fn work(target: &Target, root: &SnapshotRoot, request: Request, clock: &Clock, hold: Hold) -> Result<Report> {
    let (mut request, mut hold) = (request, hold);
    loop {
        let mut report = snapshot::snapshot(target, root, &request, clock)?;
        if matches!(report.ending, Ending::Published | Ending::Unchanged) {
            rotate::rotate_after_snapshot(target, root, clock, &mut report)?;
        }
        match hold.release_unless_due(root)? {
            Released::Yes => return Ok(report),
            Released::Due { mark, held } => {
                log::info!("{}: a run gave up waiting meanwhile; going once more", target.label());
                request = due_request(&mark);
                hold = held;
            }
        }
    }
}

/// What a run that gave up would have done.
fn due_request(mark: &DueMark) -> Request {
    let intent = match mark.grade {
        Grade::Complete => Intent::Complete,
        Grade::Partial => Intent::Partial,
    };
    Request { occasion: Occasion::Transfer(intent), ..Request::manual(false) }
}

/// What must be on disk before anything waits: the torn mark, and that the root has had a policy.
fn mark_before_lock(
    target: &Target,
    root: &SnapshotRoot,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<()> {
    let earlier = target.memory.recall(&target.module_path).and_then(|memory| memory.torn);
    let torn = torn_mark(target, request, now).or(earlier.clone());
    let policy_file = target.policy_file.as_deref().map(escape_path);
    let marked = State::update(root.private(), |state| {
        if torn.is_some() {
            state.torn = torn.clone();
        }
        if policy_file.is_some() {
            state.policy_file = policy_file;
        }
    });
    // On a full disk the mark is kept elsewhere, until there is room for it again.
    let kept = if marked.is_err() { torn } else { None };
    if kept != earlier {
        target.memory.change(&target.module_path, |memory| memory.torn = kept)?;
    }
    marked.map(drop)
}

fn torn_mark(target: &Target, request: &Request, now: DateTime<Utc>) -> Option<TornMark> {
    let (Occasion::Transfer(intent), Some(status)) = (request.occasion, request.status) else { return None };
    if !intent.tears() {
        return None;
    }
    let label = target.label();
    log::warn!("{label}: the transfer ended with status {status}; the module is torn until one ends well");
    Some(TornMark { since: now, status, noticed: request.started.clone(), fingerprint: None })
}

/// Marks the root due; for a caller who holds the state's lock.
fn due_mark(request: &Request, reason: DueReason, now: DateTime<Utc>) -> Option<DueMark> {
    let grade = request.hoped_grade()?;
    Some(DueMark { since: now, marked: BootTime::now(), grade, reason })
}

/// Remembers the outcome outside the root; never fails a run.
fn remember(target: &Target, result: &Result<Report>) {
    let failure = match result {
        Ok(report) if report.policy_trouble => {
            Some(format!("the policy cannot be used, nothing expires: {}", target.trouble.join("; ")))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let warnings = result.as_ref().map_or(Vec::new(), |report| report.warnings.clone());
    let root = (!matches!(result, Err(Error::Root { .. }))).then_some(target.root_path.as_path());
    if let Some(root) = root {
        warn_if_root_moved(target, root);
    }
    let remembered = target.memory.change(&target.module_path, |memory| {
        memory.snapshot_root = root.map(escape_path).or(memory.snapshot_root.take());
        memory.failure = failure.map(Failure::now);
        memory.warnings = warnings;
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
}

fn warn_if_root_moved(target: &Target, root: &std::path::Path) {
    let now = escape_path(root);
    let before = target.memory.recall(&target.module_path).and_then(|memory| memory.snapshot_root);
    if let Some(before) = before.filter(|before| *before != now) {
        log::warn!(
            "{}: snapshots are made in {now} from now on; those in {before} are no longer rotated",
            target.label()
        );
    }
}
