//! Checks a disk image after a power cut: all promises must hold after the next boot.

use std::path::{Path, PathBuf};

use super::history::{CLIENT, History, Promise};
use super::manifest::Manifest;
use super::medium::{Mounted, fsck};
use super::{Cut, Findings, Violation, Wrong, reboot};
use crate::support::file_system::Kind;
use crate::support::module::NAME;
use crate::support::run::Run;
use crate::support::tree;

/// A client that did not push before, so its push repairs no torn mark.
const OTHER_CLIENT: &str = "192.0.2.2";

pub(crate) struct Judge<'a> {
    pub(crate) kind: Kind,
    pub(crate) history: &'a History,
    /// Where the disk of the history was mounted.
    pub(crate) mount_point: &'a Path,
    /// Of the history, for messages.
    pub(crate) seed: u64,
}

impl Judge<'_> {
    /// Checks the `image` after a power cut. The checks change the image.
    pub(crate) fn judge(&self, image: &Path, cut: Cut) -> Findings {
        let promise = self.history.promise(cut);
        let mut trial = Trial {
            judge: self,
            found: Findings {
                images: 1,
                in_hooks: usize::from(promise.is_in_hook),
                acknowledged: promise.must.len(),
                torn: usize::from(promise.is_torn),
                ..Findings::default()
            },
            promise,
            cut,
        };
        trial.run(image);
        trial.found
    }
}

struct Trial<'a> {
    judge: &'a Judge<'a>,
    promise: Promise,
    cut: Cut,
    found: Findings,
}

impl Trial<'_> {
    fn run(&mut self, image: &Path) {
        let Some(mounted) = self.mount(image) else { return };
        self.compare_visible();
        self.compare_retired();
        self.ask();
        mounted.unmount();
        if let Err(complaint) = fsck(self.judge.kind, image) {
            self.violation(Wrong::Fsck, complaint);
        }
        let Some(mounted) = self.mount(image) else { return };
        self.push_again();
        mounted.unmount();
    }

    fn violation(&mut self, wrong: Wrong, what: String) {
        let Judge { kind, seed, .. } = self.judge;
        let what = format!("{wrong:?} on {}, seed {seed}, {:?}: {what}", kind.name(), self.cut);
        self.found.violations.push(Violation { wrong, what });
    }

    fn mount(&mut self, image: &Path) -> Option<Mounted> {
        let mounted = Mounted::new(self.judge.kind, image, self.judge.mount_point);
        mounted.map_err(|complaint| self.violation(Wrong::Mount, complaint)).ok()
    }

    /// Every visible snapshot is one that may be there and holds what it has to, and none that has
    /// to be there is missing.
    fn compare_visible(&mut self) {
        let module = &self.judge.history.module;
        let visible = module.snapshots();
        for name in &visible {
            self.found.snapshots += 1;
            self.compare(Wrong::Content, name, &module.snapshot(name));
            if !self.promise.may.contains(name) {
                self.violation(Wrong::Unexpected, format!("{name} cannot be there"));
            }
        }
        let missing: Vec<_> =
            self.promise.must.iter().filter(|name| !visible.contains(name)).collect();
        if !missing.is_empty() {
            self.violation(
                Wrong::Missing,
                format!("{missing:?} of {:?}, there is {visible:?}", self.promise.must),
            );
        }
    }

    /// Retired snapshots can be brought back, so they must be complete, too.
    fn compare_retired(&mut self) {
        let Ok(entries) = self.judge.history.module.private("expired").read_dir() else { return };
        let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        for path in paths {
            self.found.retired += 1;
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            self.compare(Wrong::Retired, &name, &path);
        }
    }

    fn compare(&mut self, wrong: Wrong, name: &str, path: &Path) {
        let difference = match self.judge.history.manifests.get(name) {
            Some(manifest) => manifest.difference(&Manifest::of(path)),
            None => Some("nothing like that was ever made".to_string()),
        };
        if let Some(difference) = difference {
            self.violation(wrong, format!("{name}: {difference}"));
        }
    }

    /// Every record is readable, and the reading commands succeed.
    fn ask(&mut self) {
        let module = &self.judge.history.module;
        let list = module.run(&["list", "--json", NAME]);
        if list.code() != Some(0) {
            return self.violation(Wrong::Command, list.to_string());
        }
        let listed = list.json()["snapshots"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = listed.iter().filter_map(|item| item["name"].as_str()).collect();
        let is_recorded = listed.iter().all(|item| item["origin"] == "recorded");
        if names != module.snapshots() || !is_recorded {
            self.violation(Wrong::Command, format!("{:?} are there: {list}", module.snapshots()));
        }
        let check = module.run(&["check", NAME]);
        if !matches!(check.code(), Some(0..=2)) {
            self.violation(Wrong::Command, check.to_string());
        }
    }

    /// The next push is let in and gets its snapshot: a complete one if it is of the client of the
    /// history, who mends what it tore, and no complete one of a torn module otherwise.
    fn push_again(&mut self) {
        let module = &self.judge.history.module;
        let before = module.snapshots();
        let client = if self.cut.from.is_multiple_of(2) { CLIENT } else { OTHER_CLIENT };
        let hooks = reboot::hooks(module, client);
        let admission = hooks.pre_xfer();
        tree::write(&module.latest.join("pushed after the power cut"), "safe again\n");
        let run = hooks.post_xfer(0);
        for hook in [&admission, &run] {
            if !matches!(hook.code(), Some(0 | 4)) {
                return self.violation(Wrong::Next, hook.to_string());
            }
        }
        let visible = module.snapshots();
        let new: Vec<_> = visible.iter().filter(|name| !before.contains(name)).collect();
        let [new] = new[..] else {
            return self.violation(
                Wrong::Next,
                format!("{visible:?} instead of {before:?} and one more: {run}"),
            );
        };
        self.expect_grade(new, client, &run);
        let difference =
            Manifest::of(&module.latest).difference(&Manifest::of(&module.snapshot(new)));
        if let Some(difference) = difference {
            self.violation(Wrong::Next, format!("{new} is not the module: {difference}"));
        }
        for name in visible.iter().filter(|name| *name != new) {
            self.compare(Wrong::Next, name, &module.snapshot(name));
        }
        if module.left_over("staging") > 0 {
            self.violation(Wrong::Next, format!("staging is not empty: {run}"));
        }
    }

    fn expect_grade(&mut self, name: &str, client: &str, run: &Run) {
        let is_partial = name.ends_with("-partial");
        let is_marked = self.judge.history.module.is_marked("torn");
        self.found.mended += usize::from(client == CLIENT && !is_partial);
        let is_wrong =
            if client == CLIENT { is_partial } else { self.promise.is_torn && !is_partial };
        if is_wrong || is_partial != is_marked {
            let what = format!(
                "{name} of {client}, marked {is_marked}, torn {}: {run}",
                self.promise.is_torn
            );
            self.violation(Wrong::Torn, what);
        }
    }
}
