//! A history of pushes with their hooks, and what was promised when, by the clock of a rig.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::manifest::Manifest;
use super::pusher::Pusher;
use super::reboot::Hooks;
use super::{Cut, Sabotage};
use crate::support::BINARY;
use crate::support::module::{Module, NAME};
use crate::support::server::Server;
use crate::support::subvolumes::make_module_directory;

/// Keeps few snapshots, so each run recycles one and some runs remove one.
const POLICY: &str = "[defaults]\nkeep = { minutely = 1 }\nmin_keep = 2\nmin_age = \"0s\"\ngrace = \"0s\"\npartial_on_exit = [23]\n\
                      keep_partial = 1\ntime_zone = \"UTC\"\nlock_wait = \"5s\"\n";

/// How the pushes end, over and over: most of them well.
const STATUSES: [i32; 6] = [0, 0, 12, 0, 23, 0];

/// The client of the history.
pub(crate) const CLIENT: &str = "192.0.2.1";

/// One push; the moments are those of the rig's clock.
pub(crate) struct Push {
    /// When it had let the push in.
    pub(crate) admitted: usize,
    /// When post-xfer began, and when it had reported that all is done.
    pub(crate) hook: (usize, usize),
    /// What was visible then.
    pub(crate) visible: Vec<String>,
    /// Whether the module was torn then.
    pub(crate) is_torn: bool,
}

pub(crate) struct History {
    pub(crate) module: Module,
    pub(crate) pushes: Vec<Push>,
    /// What each snapshot has to hold.
    pub(crate) manifests: HashMap<String, Manifest>,
    pusher: Pusher,
    sabotage: Sabotage,
}

impl History {
    /// A new module on the empty file system at `mount_point`.
    pub(crate) fn new(mount_point: &Path, seed: u64, sabotage: Sabotage) -> History {
        let root = mount_point.join("root");
        let latest = root.join("latest");
        fs::create_dir_all(&root).expect("the root");
        make_module_directory(&latest);
        let pusher = Pusher::new(&latest, seed);
        let module = Module { server: Server::new(), root, latest };
        let section = module.rsyncd_conf_section(NAME, &module.latest);
        module.write_rsyncd_conf(&format!("{section}pre-xfer exec = {BINARY} pre-xfer\n"));
        module.write_policy(POLICY);
        History { module, pushes: Vec::new(), manifests: HashMap::new(), pusher, sabotage }
    }

    /// One more push, with both hooks.
    pub(crate) fn push(&mut self, clock: &dyn Fn() -> usize) {
        let status = STATUSES[self.pushes.len() % STATUSES.len()];
        let wrapper = self.sabotage.wrapper().iter().map(ToString::to_string).collect();
        let before = self.module.snapshots();
        let hooks = Hooks { module: &self.module, wrapper, client: CLIENT };
        hooks.pre_xfer().exits(&[0]);
        let admitted = clock();
        self.pusher.push();
        let manifest = Manifest::of(&self.module.latest);
        let hook_began = clock();
        hooks.post_xfer(status).exits(&[0, 4]);
        let hook = (hook_began, clock());
        let visible = self.module.snapshots();
        let new: Vec<&String> = visible.iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(
            new.len(),
            usize::from(status != 12),
            "new snapshots after status {status}: {new:?}"
        );
        if let Some(name) = new.first() {
            self.manifests.insert((*name).clone(), manifest);
        }
        self.pushes.push(Push { admitted, hook, visible, is_torn: self.module.is_marked("torn") });
    }

    /// What was promised at the moment of a power cut.
    pub(crate) fn promise(&self, cut: Cut) -> Promise {
        let ended = self.pushes.iter().take_while(|push| push.hook.1 <= cut.from).count();
        let begun = self.pushes.iter().take_while(|push| push.hook.0 < cut.to).count();
        let states: Vec<&Push> =
            self.pushes[ended.saturating_sub(1)..begun.max(ended)].iter().collect();
        let mut may: Vec<String> = states.iter().flat_map(|push| push.visible.clone()).collect();
        may.sort();
        may.dedup();
        // Before the first hook has ended, nothing was promised.
        let must = may
            .iter()
            .filter(|name| ended > 0 && states.iter().all(|push| push.visible.contains(name)));
        let must = must.cloned().collect();
        let is_in_hook = begun > ended;
        let was_torn = self.pushes[..ended].last().is_some_and(|push| push.is_torn);
        let is_under_way = self.pushes.get(ended).is_some_and(|push| push.admitted <= cut.from);
        // A running hook may have changed the marks already; no client knows of that.
        let is_torn = !is_in_hook && (was_torn || is_under_way);
        Promise { must, may, is_torn, is_in_hook }
    }
}

/// What has to be true after a power cut.
pub(crate) struct Promise {
    /// Snapshots that have to be visible.
    pub(crate) must: Vec<String>,
    /// Snapshots that may be visible.
    pub(crate) may: Vec<String>,
    /// Whether the module has to be known as torn. If not, it may be all the same: that a push has
    /// ended well is forgotten in a power cut soon after, which is on the safe side.
    pub(crate) is_torn: bool,
    /// Whether a hook was running.
    pub(crate) is_in_hook: bool,
}
