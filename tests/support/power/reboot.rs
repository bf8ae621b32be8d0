//! The next boot: commands that see another boot ID, and an empty memory of the machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::module::Module;
use crate::support::run::Run;

/// The hooks of the module, as they are run for a push.
pub(crate) struct Hooks<'a> {
    pub(crate) module: &'a Module,
    /// What they are run through.
    pub(crate) wrapper: Vec<String>,
    /// The address of the client.
    pub(crate) client: &'static str,
}

impl Hooks<'_> {
    pub(crate) fn pre_xfer(&self) -> Run {
        Run::of(self.command(0).arg("pre-xfer"))
    }

    pub(crate) fn post_xfer(&self, status: i32) -> Run {
        Run::of(&mut self.command(status))
    }

    fn command(&self, status: i32) -> Command {
        let mut command = self.module.hook_through(&self.wrapper);
        // This process stands for the one that serves the connection: it lives as long as its boot.
        command.env("RSYNC_PID", std::process::id().to_string()).env("RSYNC_REQUEST", "data/");
        command.env("RSYNC_HOST_ADDR", self.client).env("RSYNC_HOST_NAME", "client.example");
        command
            .env("RSYNC_EXIT_STATUS", status.to_string())
            .env("RSYNC_RAW_STATUS", (status << 8).to_string());
        command
    }
}

/// The hooks after a reboot.
pub(crate) fn hooks<'a>(module: &'a Module, client: &'static str) -> Hooks<'a> {
    for directory in [module.state_directory(), module.runtime_directory()] {
        empty(&directory);
    }
    let boot = module.directory.join("next boot");
    fs::write(&boot, "00000000-0000-4000-8000-000000000001\n").expect("a file");
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let boot = boot.to_str().expect("UTF-8");
    let wrapper = ["unshare", "--mount", "sh", "-c", script, boot].map(str::to_string).to_vec();
    Hooks { module, wrapper, client }
}

fn empty(directory: &Path) {
    fs::remove_dir_all(directory)
        .and_then(|()| fs::create_dir(directory))
        .expect("an empty directory");
}
