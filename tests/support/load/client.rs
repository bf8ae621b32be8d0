//! A client of the storm: it pushes its source into a directory of its own, pulls directories of
//! other clients, and is killed at random.
//!
//! After a failed push, the client pushes with `--delete` and no special options, as an
//! administrator would. That repairs everything that the failed push left, including temporary
//! files.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::command::{Interruption, run};
use super::event::{Action, Ending, Event, Moment};
use super::manifest::UNLISTED;
use super::site::Site;
use super::source::{Change, Source};
use crate::support::daemon;
use crate::support::random::Random;

/// Messages of rsync without a connection: then nothing was written.
const NOT_CONNECTED: &str = "failed to connect";

pub(crate) struct Client<'a> {
    site: &'a Site,
    number: usize,
    /// `rsync://HOST:PORT/`
    server: String,
    directory: PathBuf,
    source: Source,
    random: Random,
    /// Whether the last push failed and left a mixture.
    is_unclean: bool,
    /// Whether a push ended well, so the directory exists.
    has_pushed: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(site: &'a Site, number: usize, server: &str) -> Client<'a> {
        let mut random = Random::new(site.size.seed * 1_000 + number as u64);
        let name = site.client_name(number);
        let directory = site.server.directory.join("clients").join(&name);
        let source = Source::new(directory.join("source"), &name, &mut random);
        let server = server.to_string();
        Client {
            site,
            number,
            server,
            directory,
            source,
            random,
            is_unclean: false,
            has_pushed: false,
        }
    }

    /// Runs until that time.
    pub(crate) fn storm(&mut self, until: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(self.random.below(150) as u64));
            let action = match self.random.below(20) {
                0..=10 => Action::Push,
                11 if self.has_pushed && !self.is_unclean => Action::Deletion,
                11 | 12 => Action::DryRun,
                13..=16 => Action::Listing,
                _ => Action::Pull,
            };
            events.push(self.act(action));
        }
        events
    }

    fn act(&mut self, action: Action) -> Event {
        match action {
            Action::Push => self.push(),
            Action::Deletion => self.delete(),
            Action::Pull => self.pull(),
            Action::Listing => self.list(),
            Action::DryRun => self.dry_run(),
        }
    }

    fn push(&mut self) -> Event {
        let change = match self.random.below(8) {
            0 => Change::Nothing,
            1 => Change::Removals,
            2 | 3 => Change::Large,
            _ => Change::Few,
        };
        self.source.change(change, &mut self.random);
        if self.random.once_in(6) {
            self.source.litter();
        }
        let mut options = Vec::new();
        if self.is_unclean || change == Change::Removals || self.random.once_in(3) {
            options.push("--delete");
        }
        if change == Change::Large {
            options.push("--bwlimit=200");
        }
        if !self.is_unclean {
            let fancy = [
                &[][..],
                &["--whole-file"],
                &["--delay-updates"],
                &["--partial"],
                &["--checksum"],
                &["--no-inc-recursive"],
                &["--delete-after"],
            ];
            options.extend_from_slice(self.random.of(&fancy).expect("some"));
            if self.random.once_in(25) {
                options.push("--inplace");
            }
        }
        let interruption = self.interruption(4);
        self.push_with(options, interruption)
    }

    /// A push without faults.
    pub(crate) fn calm_push(&mut self) -> Event {
        self.source.change(Change::Few, &mut self.random);
        self.push_with(vec!["--delete"], None)
    }

    fn push_with(
        &mut self,
        options: Vec<&'static str>,
        interruption: Option<Interruption>,
    ) -> Event {
        let target = self.own_url("");
        let source = format!("{}/", self.source.directory.display());
        let event = self.run(Action::Push, options, &["--archive", &source, &target], interruption);
        // Without a connection nothing was written, and an earlier failed push still needs
        // `--delete`.
        let was_written = !event.complaint.contains(NOT_CONNECTED);
        self.is_unclean = match event.ending {
            Ending::Exited(0) => false,
            _ => self.is_unclean || was_written || event.options.contains(&"--delete"),
        };
        self.has_pushed |= event.succeeded();
        event
    }

    /// Removes files of a directory, and does nothing else.
    fn delete(&mut self) -> Event {
        self.source.tidy();
        let target = self.own_url(UNLISTED);
        let source = format!("{}/{UNLISTED}", self.source.directory.display());
        let interruption = self.interruption(4);
        let options = vec!["--delete", "--existing", "--ignore-existing"];
        let event =
            self.run(Action::Deletion, options, &["--recursive", &source, &target], interruption);
        // The server counts it as a failed transfer, so the module is torn.
        self.is_unclean |= !event.succeeded();
        event
    }

    fn pull(&mut self) -> Event {
        let target = self.directory.join("pulled");
        let _ = fs::remove_dir_all(&target);
        let from = self.some_url();
        let interruption = self.interruption(4);
        let mut options = Vec::new();
        if self.random.once_in(2) {
            options.push("--bwlimit=400");
        }
        self.run(
            Action::Pull,
            options,
            &["--archive", &from, &target.display().to_string()],
            interruption,
        )
    }

    fn list(&mut self) -> Event {
        let from = self.some_url();
        let interruption = self.interruption(6);
        self.run(Action::Listing, vec!["--list-only"], &["--recursive", &from], interruption)
    }

    fn dry_run(&mut self) -> Event {
        let target = self.own_url("");
        let source = format!("{}/", self.source.directory.display());
        let interruption = self.interruption(6);
        self.run(
            Action::DryRun,
            vec!["--dry-run", "--delete"],
            &["--archive", &source, &target],
            interruption,
        )
    }

    /// In one of `times` cases, an interruption within the first half second.
    fn interruption(&mut self, times: usize) -> Option<Interruption> {
        if !self.random.once_in(times) {
            return None;
        }
        let after = Duration::from_millis(20 + self.random.below(500) as u64);
        let signal = if self.random.once_in(2) { Signal::SIGKILL } else { Signal::SIGINT };
        Some(Interruption { after, signal })
    }

    fn run(
        &mut self,
        action: Action,
        options: Vec<&'static str>,
        arguments: &[&str],
        interruption: Option<Interruption>,
    ) -> Event {
        let module = self.module_of(arguments);
        let mut command: Command = daemon::client();
        command.arg(format!("--address={}", self.site.address(self.number)));
        command.args(&options).args(arguments);
        let began = Moment::now();
        let (ending, complaint) =
            run(&mut command, &self.directory.join("complaints"), interruption);
        Event {
            client: self.number,
            module,
            action,
            options,
            sequence: self.source.sequence,
            began,
            ended: Moment::now(),
            ending,
            complaint,
        }
    }

    fn module_of(&self, arguments: &[&str]) -> usize {
        let path = arguments.iter().find_map(|argument| argument.strip_prefix(&self.server));
        let name = path.and_then(|path| path.split('/').next()).expect("a URL");
        self.site.modules.iter().position(|module| module.name == name).expect("a module")
    }

    fn own_url(&self, path: &str) -> String {
        let module = &self.site.modules[self.site.size.home(self.number)].name;
        format!("{}{module}/{}/{path}", self.server, self.site.client_name(self.number))
    }

    fn some_url(&mut self) -> String {
        let module = &self.random.of(&self.site.modules).expect("modules").name;
        format!("{}{module}/", self.server)
    }
}
