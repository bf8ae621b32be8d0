//! The findings of `check` about the age of a module's backup: the newest complete snapshot, the
//! last good push, and the last good push of each client that the policy watches.

use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::Settings;
use crate::decide::client::Client;
use crate::decide::duration_text::{DurationText, roughly};
use crate::decide::grade::Grade;
use crate::decide::push_age::{
    AgeFacts, AgeLevel, PushAge, expected_since, last_push, level, push_age,
};
use crate::decide::push_history::PushHistory;
use crate::decide::rsync_status::RsyncStatus;
use crate::decide::similar::did_you_mean;
use crate::module::expected_pushes::{conf_file, expects_pushes};
use crate::module::target::Target;
use crate::store::expected_pushes::NotedPushes;
use crate::store::snapshots::{ListedSnapshot, SnapshotList};
use crate::tell::counted;
use crate::tell::escape::escape;

/// What the ages of a module are judged by.
pub(crate) struct Ages<'a> {
    target: &'a Target,
    /// The module in rsyncd.conf.
    module: Option<&'a RsyncdModule>,
    /// With what is remembered outside the root.
    history: PushHistory,
    list: &'a SnapshotList,
    noted: &'a NotedPushes<'a>,
    /// The first snapshot is being made.
    is_at_work: bool,
    now: DateTime<Utc>,
}

impl<'a> Ages<'a> {
    pub(crate) fn of(
        target: &'a Target,
        history: PushHistory,
        list: &'a SnapshotList,
        noted: &'a NotedPushes<'a>,
        is_at_work: bool,
        now: DateTime<Utc>,
    ) -> Self {
        let conf = target.rsyncd.as_deref();
        let module = target.name.as_deref().and_then(|name| conf?.module(name));
        Ages { target, module, history, list, noted, is_at_work, now }
    }

    /// The findings about pushes, and last the one about snapshots, which sums up.
    pub(crate) fn findings(&self, is_registered: bool) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.of_pushes().into_iter().collect();
        findings.extend(self.of_clients());
        findings.push(self.of_snapshots(is_registered));
        findings
    }

    fn of_pushes(&self) -> Option<Finding> {
        let max_age = self.target.policy.max_age?;
        let facts = AgeFacts {
            max_age,
            now: self.now,
            expects_pushes: self.expects_pushes(),
            last_push: self.last_push(&|_| true),
            expected_since: self.expected_since(),
        };
        let who = self.history.last_good().map(|(who, _)| format!(", by {}", who.label()));
        let failed = self.last_failed(&|_| true);
        match push_age(&facts) {
            PushAge::Fine => None,
            PushAge::Old(level, age) => Some(Finding::new(
                FindingId::PushAge,
                severity(level),
                format!(
                    "the last good push ended {} ago{}, {}{failed}: {}",
                    roughly(age),
                    who.unwrap_or_default(),
                    more_than(level, max_age),
                    self.look_at_client()
                ),
            )),
            PushAge::Never(age) => Some(Finding::new(
                FindingId::PushAge,
                Severity::Critical,
                format!(
                    "no good push has ever come in the {} since one was expected; max_age is \
                     {max_age}{failed}: {}",
                    roughly(age),
                    self.look_at_client()
                ),
            )),
        }
    }

    /// Where to look, and what to do if no client is to push.
    fn look_at_client(&self) -> String {
        let filled = self.target.command("snapshot", "--status 0");
        format!(
            "look on the client whether its backup job runs, and at its output; {} shows refused \
             connections; if a job without a daemon fills the module, let `{filled}` be its last \
             command",
            self.log()
        )
    }

    /// Where rsyncd logs about this module.
    pub(crate) fn log(&self) -> String {
        log_of(self.module)
    }

    fn of_clients(&self) -> Vec<Finding> {
        let watched = self.target.policy.client_max_age.iter();
        watched.filter_map(|(name, max_age)| self.of_client(name, *max_age)).collect()
    }

    fn of_client(&self, name: &str, max_age: DurationText) -> Option<Finding> {
        let is_it = |who: &Client| who.is_called(name);
        let facts = AgeFacts {
            max_age,
            now: self.now,
            expects_pushes: true,
            last_push: self.last_push(&is_it),
            expected_since: self.client_expected_since(name),
        };
        let failed = self.last_failed(&is_it);
        let label = escape(name.as_bytes());
        match push_age(&facts) {
            PushAge::Fine => self.mistyped(name),
            PushAge::Old(level, age) => Some(Finding::new(
                FindingId::PushAge,
                severity(level),
                format!(
                    "client {label}: the last good push ended {} ago, {}{failed}: look there \
                     whether its backup job runs, and at its output; {} shows refused connections",
                    roughly(age),
                    more_than(level, max_age),
                    self.log()
                ),
            )),
            PushAge::Never(age) => Some(Finding::new(
                FindingId::PushAge,
                Severity::Critical,
                format!(
                    "client {label}: no good push has ever come in the {} since one was expected; \
                     max_age is {max_age}{failed}: {}",
                    roughly(age),
                    self.known_clients(name)
                ),
            )),
        }
    }

    /// A client that has never pushed, and whose name is nearly that of one that has. Until
    /// `max_age` is over, nothing else tells of the mistake.
    fn mistyped(&self, name: &str) -> Option<Finding> {
        let has_pushed = self.history.clients.iter().any(|client| client.who.is_called(name));
        let similar = self.similar(name);
        let message = || {
            format!(
                "client {} of the policy has never pushed{similar}: the policy names a client by \
                 its user, host name or address",
                escape(name.as_bytes())
            )
        };
        let is_mistyped = !has_pushed && !similar.is_empty();
        is_mistyped.then(|| Finding::new(FindingId::PushAge, Severity::Warning, message()))
    }

    /// A client that has pushed, and whose name is nearly `name`, as a remark.
    fn similar(&self, name: &str) -> String {
        let known = self.history.clients.iter().map(|client| &client.who);
        let names = known.flat_map(|who| [&who.user, &who.name, &who.address]);
        let watched = &self.target.policy.client_max_age;
        // A client that the policy watches is another one.
        let names = names.map(String::as_str).filter(|name| !watched.contains_key(*name));
        did_you_mean(&escape(name.as_bytes()), names)
    }

    /// What the policy could have meant by a client that has never pushed.
    fn known_clients(&self, name: &str) -> String {
        let known: Vec<String> =
            self.history.clients.iter().map(|client| client.who.label()).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        format!(
            "the policy names a client by its user, host name or address: is the name right{}? \
             Clients that have pushed: {known}; {} shows refused connections",
            self.similar(name),
            self.log()
        )
    }

    /// How the last push failed, if that is newer than the last good one.
    fn last_failed(&self, is_it: &dyn Fn(&Client) -> bool) -> String {
        let clients = self.history.clients.iter().filter(|client| is_it(&client.who));
        let good = clients.clone().filter_map(|client| client.good).max();
        let failed = clients.filter_map(|client| Some((&client.who, client.failed.as_ref()?)));
        let newest = failed.max_by_key(|(_, end)| end.time);
        match newest.filter(|(_, end)| good.is_none_or(|good| good < end.time)) {
            None => String::new(),
            Some((who, end)) => format!(
                "; a push of {} failed {} ago with {}",
                who.label(),
                self.ago(end.time),
                RsyncStatus(end.status).with_space(end.free_bytes)
            ),
        }
    }

    /// How long ago that was, in whole seconds: `now` is one.
    fn ago(&self, time: DateTime<Utc>) -> String {
        roughly(TimeDelta::seconds((self.now - time).num_seconds()))
    }

    /// Whether pushes are expected: the module's configuration says so, or one has come before. A
    /// directory that another program fills, and of which only snapshots are taken, expects none.
    fn expects_pushes(&self) -> bool {
        self.module.is_some_and(expects_pushes)
            || !self.history.clients.is_empty()
            || self.list.items.iter().any(ListedSnapshot::is_recorded_push)
    }

    fn last_push(&self, is_it: &dyn Fn(&Client) -> bool) -> Option<DateTime<Utc>> {
        let clients = self.history.clients.iter().filter(|client| is_it(&client.who));
        let noted = clients.filter_map(|client| client.good).max();
        last_push(noted, self.newest_pushed(is_it), self.history.since)
    }

    /// Until when a complete snapshot that a push brought was found equal to the module.
    fn newest_pushed(&self, is_it: &dyn Fn(&Client) -> bool) -> Option<DateTime<Utc>> {
        let is_pushed = |item: &&ListedSnapshot| {
            let is_complete = item.name.grade == Grade::Complete;
            is_complete && item.name.time <= self.now && item.may_be_push(is_it)
        };
        let pushed = self.list.items.iter().filter(is_pushed);
        pushed.map(ListedSnapshot::verified_until).max()
    }

    /// Since when a push to the module could have come.
    fn expected_since(&self) -> Option<DateTime<Utc>> {
        let module = self.module?;
        let file = conf_file(module);
        let noted = self.noted.since(file, &module.name, None);
        expected_since(noted, changed(file), self.born())
    }

    fn client_expected_since(&self, name: &str) -> Option<DateTime<Utc>> {
        let noted = self
            .module
            .and_then(|module| self.noted.since(conf_file(module), &module.name, Some(name)));
        let policy = self.target.policy_file.as_deref().and_then(changed);
        expected_since(noted, policy, self.born())
    }

    /// When the module's directory was made; `None` if its file system does not tell.
    fn born(&self) -> Option<DateTime<Utc>> {
        time_of(std::fs::metadata(&self.target.module_path), Metadata::created)
    }

    /// How old the newest complete snapshot is, against `max_age`.
    fn of_snapshots(&self, is_registered: bool) -> Finding {
        let max_age = self.target.policy.max_age;
        let Some(newest) = self.list.newest(Grade::Complete, self.now) else {
            return match (is_registered && !self.is_at_work, max_age) {
                (false, _) if is_registered => Finding::new(
                    FindingId::Age,
                    Severity::Ok,
                    "no complete snapshot yet; one is being made",
                ),
                (false, _) => Finding::new(FindingId::Age, Severity::Ok, "no run yet"),
                (true, None) => {
                    Finding::new(FindingId::Age, Severity::Ok, "no complete snapshot yet")
                }
                (true, Some(max_age)) => Finding::new(
                    FindingId::Age,
                    Severity::Warning,
                    format!(
                        "no complete snapshot yet, and max_age is {max_age}: push to the module, \
                         or run `{}`",
                        self.target.command("snapshot", "")
                    ),
                ),
            };
        };
        let age = self.now - newest.verified_until();
        let mut text = format!(
            "{}; the newest complete one equalled the module {} ago",
            counted(self.list.items.len(), "snapshot"),
            roughly(age)
        );
        let level = max_age.and_then(|max_age| Some((level(age, max_age)?, max_age)));
        let level = level.map_or(Severity::Ok, |(level, max_age)| {
            text += &format!(", {}", more_than(level, max_age));
            // What is amiss with expected pushes has findings of its own.
            if !self.expects_pushes() {
                let command = self.target.command("snapshot", "");
                text += &format!(" (run `{command}`, and see to a timer or job that does)");
            }
            severity(level)
        });
        if let Some((who, time)) = self.history.last_good() {
            text += &format!("; last good push {} ago by {}", self.ago(time), who.label());
        }
        text += &self.last_failed(&|_| true);
        let pinned = self.list.items.iter().filter(|item| item.pin.is_some()).count();
        if pinned > 0 {
            text += &format!(", {pinned} pinned");
        }
        Finding::new(FindingId::Age, level, text)
    }
}

/// Whether a push is missing to a module whose directory is not known, because none ever came.
pub(crate) fn never_pushed(
    settings: &Settings,
    module: &RsyncdModule,
    noted: &NotedPushes,
    now: DateTime<Utc>,
) -> Option<Finding> {
    let max_age = settings.policy(Some(&module.name)).max_age?;
    let file = conf_file(module);
    let noted = noted.since(file, &module.name, None);
    let facts = AgeFacts {
        max_age,
        now,
        expects_pushes: expects_pushes(module),
        last_push: None,
        expected_since: expected_since(noted, changed(file), None),
    };
    let PushAge::Never(age) = push_age(&facts) else { return None };
    let message = format!(
        "no good push has ever come in the {} since one was expected; max_age is {max_age}: look \
         on the client whether its backup job runs, and at its output; {} shows refused \
         connections",
        roughly(age),
        log_of(Some(module))
    );
    Some(Finding::new(FindingId::PushAge, Severity::Critical, message))
}

/// Where rsyncd logs about a module.
pub(crate) fn log_of(module: Option<&RsyncdModule>) -> String {
    let file = module.and_then(|module| module.get("log file")).filter(|file| !file.is_empty());
    match file {
        Some(file) => format!("rsyncd's log {}", escape(file)),
        None => "rsyncd's log (`journalctl -t rsyncd`)".to_string(),
    }
}

fn changed(file: &Path) -> Option<DateTime<Utc>> {
    time_of(std::fs::metadata(file), Metadata::modified)
}

fn time_of(
    metadata: std::io::Result<Metadata>,
    time: impl FnOnce(&Metadata) -> std::io::Result<SystemTime>,
) -> Option<DateTime<Utc>> {
    metadata.and_then(|metadata| time(&metadata)).ok().map(DateTime::from)
}

fn severity(level: AgeLevel) -> Severity {
    match level {
        AgeLevel::Old => Severity::Warning,
        AgeLevel::TooOld => Severity::Critical,
    }
}

fn more_than(level: AgeLevel, max_age: DurationText) -> String {
    match level {
        AgeLevel::Old => format!("more than max_age {max_age}"),
        AgeLevel::TooOld => format!("more than twice max_age {max_age}"),
    }
}
