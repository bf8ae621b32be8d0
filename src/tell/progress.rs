//! Shows the progress of long work on a terminal: entries done, entries a second, time left.
//!
//! The process has one bar, as it has one log, and any part of the engine adds to it. Without a
//! terminal, and in a hook, there is no bar. The name of each phase of the work also goes to those
//! who [watch]: a run writes it into the lock file, for runs that wait.

use std::cell::RefCell;
use std::io::{IsTerminal, stderr};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Whether a phase is shown. Without this, an empty bar would be drawn after a log line.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

type Watcher = dyn Fn(&'static str);

thread_local! {
    /// Who is told of the phases that begin in this thread. A run works in one thread, and tests
    /// have a run in each of several.
    static WATCHERS: RefCell<Vec<Rc<Watcher>>> = const { RefCell::new(Vec::new()) };
}

/// Tells of phases until this value is dropped.
#[must_use]
pub(crate) struct PhaseWatch(Rc<Watcher>);

impl Drop for PhaseWatch {
    fn drop(&mut self) {
        WATCHERS.with_borrow_mut(|all| all.retain(|one| !Rc::ptr_eq(one, &self.0)));
    }
}

/// Calls `tell` with the name of each phase that begins in this thread.
pub(crate) fn watch(tell: impl Fn(&'static str) + 'static) -> PhaseWatch {
    let watcher: Rc<Watcher> = Rc::new(tell);
    WATCHERS.with_borrow_mut(|all| all.push(Rc::clone(&watcher)));
    PhaseWatch(watcher)
}

/// Begins a phase of which no progress is shown.
pub(crate) fn enter(phase: &'static str) {
    WATCHERS.with_borrow(|all| all.iter().for_each(|tell| tell(phase)));
}

/// Shows progress from now on if standard error is a terminal.
pub(crate) fn start() {
    if stderr().is_terminal() && BAR.get().is_none() {
        // Nothing is drawn until the first phase; then ten times a second at most.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let _ = BAR.set(bar);
    }
}

/// A phase of work that is shown. The line is removed when this value is dropped, also by an error.
#[must_use]
pub(crate) struct ProgressPhase(());

impl Drop for ProgressPhase {
    fn drop(&mut self) {
        IS_SHOWN.store(false, Ordering::Relaxed);
        if let Some(bar) = BAR.get() {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }
}

/// Begins a phase named `what`. `entries`: how many are expected, if that is known.
pub(crate) fn begin(what: &'static str, entries: Option<u64>) -> ProgressPhase {
    enter(what);
    let Some(bar) = BAR.get() else { return ProgressPhase(()) };
    let template = match entries {
        Some(_) => "{msg}: {human_pos} of about {human_len} entries, {rate} a second, {eta} left",
        None => "{msg}: {human_pos} entries, {rate} a second",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("rate", rate));
    }
    bar.reset();
    match entries {
        Some(entries) => bar.set_length(entries),
        None => bar.unset_length(),
    }
    IS_SHOWN.store(true, Ordering::Relaxed);
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    ProgressPhase(())
}

fn rate(state: &ProgressState, write: &mut dyn std::fmt::Write) {
    // The work goes on if the line cannot be drawn.
    let _ = write!(write, "{:.0}", state.per_sec());
}

/// Counts `entries` as done.
pub(crate) fn add(entries: u64) {
    if let Some(bar) = BAR.get() {
        bar.inc(entries);
    }
}

/// Work that often is done at once, and is shown only when it takes longer.
pub(crate) struct LongWork {
    what: &'static str,
    began: Instant,
    entries: u64,
    phase: Option<ProgressPhase>,
}

/// How long such work takes before it is shown.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

impl LongWork {
    /// Begins work that is shown as `what`.
    pub(crate) fn begin(what: &'static str) -> Self {
        LongWork { what, began: Instant::now(), entries: 0, phase: None }
    }

    /// Counts `entries` as done.
    pub(crate) fn add(&mut self, entries: u64) {
        self.entries += entries;
        if self.phase.is_some() {
            add(entries);
        } else if BAR.get().is_some() && self.began.elapsed() >= SHOWN_AFTER {
            self.phase = Some(begin(self.what, None));
            add(self.entries);
        }
    }
}

/// Runs `write`, which writes lines to the terminal, with the bar hidden.
pub(crate) fn pause<T>(write: impl FnOnce() -> T) -> T {
    match BAR.get().filter(|_| IS_SHOWN.load(Ordering::Relaxed)) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
