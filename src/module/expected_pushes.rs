//! Which pushes the configuration leads one to expect, for the note of when it first did.

use std::path::Path;

use chrono::{DateTime, Utc};

use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{PolicySource, Settings};
use crate::store::expected_pushes::{self, ExpectedPush};

/// Whether clients are to push to the module: they may, and it runs the hook.
pub(crate) fn expects_pushes(module: &RsyncdModule) -> bool {
    !offers_only_reading(module) && module.runs_this_program("post-xfer exec")
}

/// The file of rsyncd.conf that the module's header is in.
pub(crate) fn conf_file(module: &RsyncdModule) -> &Path {
    &module.place.file
}

/// Notes which modules, and which clients that the policy watches, are expected to push. An error
/// is only logged: then the files of the configuration tell since when.
pub(crate) fn note(settings: &Settings, now: DateTime<Utc>) {
    let Ok(conf) = settings.rsyncd() else { return };
    let mut expected = Vec::new();
    for module in conf.modules.iter().filter(|module| expects_pushes(module)) {
        let settings = settings.of_configured(module);
        // Which clients the policy watches is not known while it has a mistake.
        if matches!(settings.source, PolicySource::Trouble(_)) {
            return;
        }
        let file = conf_file(module);
        let policy = settings.policy(Some(&module.name));
        let of_client = |name: &String| ExpectedPush::new(file, &module.name, Some(name), now);
        expected.push(ExpectedPush::new(file, &module.name, None, now));
        expected.extend(policy.client_max_age.keys().map(of_client));
    }
    if let Err(error) = expected_pushes::note(&settings.memory, &expected) {
        log::debug!("it is not noted which pushes are expected: {error}");
    }
}
