//! Unlocks and mounts the backup disk for a run, and unmounts and locks it afterwards.
//!
//! A run records each device that it has unlocked and each file system that it has mounted at once,
//! even if the command that did so then fails. [`Disk::unmount_and_lock`] undoes these steps in
//! reverse order. A disk that was unlocked or mounted before the run stays so, because another
//! program may use it. Signals do not interrupt the undoing.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::disk::tables::{CrypttabEntry, crypttab_entry, mounted_device};
use crate::client::error::{ClientError, Result};
use crate::client::machine::{Machine, Privilege};
use crate::client::signals;
use crate::tell::escape::{escape, escape_path};

const CRYPTTAB: &str = "/etc/crypttab";
const FSTAB: &str = "/etc/fstab";

/// Programs that unlock an entry of crypttab; the first knows the most options.
const UNLOCKERS: [&str; 5] = [
    "cryptdisks_start",
    "/usr/lib/systemd/systemd-cryptsetup",
    "/lib/systemd/systemd-cryptsetup",
    "systemd-cryptsetup",
    "cryptsetup",
];

/// How often a busy file system is unmounted: a desktop that scans a new disk ends soon.
const UNMOUNT_TRIES: u32 = 5;
const UNMOUNT_PAUSE: Duration = Duration::from_secs(2);

/// How long to wait for the file of an unlocked device.
const DEVICE_TRIES: u32 = 50;
const UNEXPECTED_DEVICE_TRIES: u32 = 10;
const DEVICE_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Disk<'a> {
    machine: &'a Machine,
    crypt: Option<CrypttabEntry>,
    mount_point: Option<&'a Path>,
    undo: Vec<UndoStep>,
}

/// A step that this run has to undo.
enum UndoStep {
    Lock { args: Vec<OsString> },
    Unmount { mount_point: PathBuf },
}

impl<'a> Disk<'a> {
    /// Finds the devices of `crypto` and of the mount point. Changes nothing.
    ///
    /// # Errors
    /// [`ClientError::MissingDisk`] if the device is not connected. [`ClientError::Refused`] if
    /// crypttab or fstab do not name it.
    pub(crate) fn find(
        machine: &'a Machine,
        crypto: Option<&str>,
        mount_point: Option<&'a Path>,
    ) -> Result<Self> {
        let crypt = crypto.map(|name| find_crypttab_entry(machine, name)).transpose()?;
        let disk = Disk { machine, crypt, mount_point, undo: Vec::new() };
        if let Some(entry) = &disk.crypt
            && !disk.is_unlocked(entry)?
            && !machine.exists(&entry.device)?
        {
            return Err(missing_disk(
                &format!("the encrypted device {}", escape(entry.name.as_bytes())),
                &entry.device,
            ));
        }
        if let Some(mount_point) = mount_point {
            disk.look_for_file_system(mount_point)?;
        }
        Ok(disk)
    }

    /// The device in fstab must exist, unless unlocking creates it.
    fn look_for_file_system(&self, mount_point: &Path) -> Result<()> {
        if self.is_mounted(mount_point)? {
            return Ok(());
        }
        let text = self.machine.read(Path::new(FSTAB))?.unwrap_or_default();
        let Some(device) = mounted_device(&text, mount_point) else {
            let path = escape_path(mount_point);
            return Err(ClientError::Refused(format!(
                "{FSTAB} has no entry for {path}, and it is not mounted: write one with the option \
                 noauto, or correct --mount"
            )));
        };
        match device {
            Some(device)
                if self.crypt.is_none()
                    && device.starts_with("/dev/mapper")
                    && !self.machine.exists(&device)? =>
            {
                Err(ClientError::Refused(format!(
                    "{} does not exist: name it with --crypto, so that it is unlocked",
                    escape_path(&device)
                )))
            }
            Some(device) if self.crypt.is_none() && !self.machine.exists(&device)? => Err(
                missing_disk(&format!("the file system of {}", escape_path(mount_point)), &device),
            ),
            _ => Ok(()),
        }
    }

    /// Unlocks and mounts the disk, unless that is already done.
    ///
    /// # Errors
    /// If a command fails. [`Disk::unmount_and_lock`] undoes the commands before it.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if let Some(entry) = self.crypt.clone() {
            self.unlock(&entry)?;
        }
        match self.mount_point {
            Some(mount_point) => self.mount(mount_point),
            None => Ok(()),
        }
    }

    fn unlock(&mut self, entry: &CrypttabEntry) -> Result<()> {
        let name = escape(entry.name.as_bytes());
        if self.is_unlocked(entry)? {
            log::info!("the encrypted device {name} is already unlocked");
            return Ok(());
        }
        let program =
            self.machine.first_installed(&UNLOCKERS)?.ok_or_else(|| ClientError::NoProgram {
                program: "cryptdisks_start or cryptsetup".into(),
                remedy: "install the package cryptsetup".into(),
            })?;
        log::info!("unlocking the encrypted device {name}");
        let ran = self
            .machine
            .prompting_command(&unlock_args(program, entry)?, Privilege::Root)
            .succeed();
        let is_unlocked =
            signals::without_interruption(|| self.becomes_unlocked(entry, ran.is_ok()));
        // If the answer is an error, the device may be unlocked.
        if !matches!(is_unlocked, Ok(false)) {
            self.undo.push(UndoStep::Lock { args: lock_args(program, entry) });
        }
        ran?;
        match is_unlocked? {
            true => Ok(()),
            false => Err(ClientError::Failed(format!(
                "{program} did not unlock {name}: /dev/mapper/{name} is not there"
            ))),
        }
    }

    fn mount(&mut self, mount_point: &Path) -> Result<()> {
        let path = escape_path(mount_point);
        if self.is_mounted(mount_point)? {
            log::info!("{path} is already mounted");
            return Ok(());
        }
        log::info!("mounting {path}");
        let args = [OsStr::new("mount"), mount_point.as_os_str()];
        let ran = self.machine.command(&args, Privilege::Root).succeed();
        let is_mounted = signals::without_interruption(|| self.is_mounted(mount_point));
        if !matches!(is_mounted, Ok(false)) {
            self.undo.push(UndoStep::Unmount { mount_point: mount_point.to_path_buf() });
        }
        ran?;
        match is_mounted? {
            true => Ok(()),
            false => Err(ClientError::Failed(format!("mount did not mount {path}"))),
        }
    }

    fn is_unlocked(&self, entry: &CrypttabEntry) -> Result<bool> {
        self.machine.exists(&Path::new("/dev/mapper").join(&entry.name))
    }

    /// Waits for the device file, which udev makes some time after the device is unlocked, even if
    /// the unlocking program was killed.
    fn becomes_unlocked(&self, entry: &CrypttabEntry, is_expected: bool) -> Result<bool> {
        let tries = if is_expected { DEVICE_TRIES } else { UNEXPECTED_DEVICE_TRIES };
        for _ in 1..tries {
            if self.is_unlocked(entry)? {
                return Ok(true);
            }
            std::thread::sleep(DEVICE_PAUSE);
        }
        self.is_unlocked(entry)
    }

    fn is_mounted(&self, mount_point: &Path) -> Result<bool> {
        // Old versions end with 1 for a directory that is not mounted or does not exist, newer ones
        // with 32.
        let args = [OsStr::new("mountpoint"), OsStr::new("-q"), mount_point.as_os_str()];
        let ended = self.machine.command(&args, Privilege::Own).run()?;
        match ended.status {
            Some(0) => Ok(true),
            Some(1 | 32) => Ok(false),
            _ => Err(ended.into_error()),
        }
    }

    /// Unmounts and locks what this run has mounted and unlocked, in reverse order. After an error
    /// it goes on with the next step.
    ///
    /// # Errors
    /// All errors.
    pub(crate) fn unmount_and_lock(&mut self) -> std::result::Result<(), Vec<ClientError>> {
        let undo = std::mem::take(&mut self.undo);
        let errors: Vec<ClientError> = signals::without_interruption(|| {
            undo.iter().rev().filter_map(|undo| self.undo(undo).err()).collect()
        });
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn undo(&self, undo: &UndoStep) -> Result<()> {
        match undo {
            UndoStep::Unmount { mount_point } => self.unmount(mount_point),
            UndoStep::Lock { args } => {
                log::info!("locking the encrypted device again");
                self.machine.command(args, Privilege::Root).succeed().map(drop)
            }
        }
    }

    fn unmount(&self, mount_point: &Path) -> Result<()> {
        log::info!("unmounting {}", escape_path(mount_point));
        let args = [OsStr::new("umount"), mount_point.as_os_str()];
        let mut tries = 1;
        loop {
            match self.machine.command(&args, Privilege::Root).succeed() {
                Ok(_) => return Ok(()),
                Err(ClientError::Command { last_errors, .. })
                    if last_errors.contains("busy") && tries < UNMOUNT_TRIES =>
                {
                    log::debug!("{} is busy; trying again", escape_path(mount_point));
                    std::thread::sleep(UNMOUNT_PAUSE);
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn find_crypttab_entry(machine: &Machine, name: &str) -> Result<CrypttabEntry> {
    let text = machine.read(Path::new(CRYPTTAB))?.unwrap_or_default();
    crypttab_entry(&text, name).ok_or_else(|| {
        let name = escape(name.as_bytes());
        ClientError::Refused(format!(
            "{CRYPTTAB} has no entry {name}: write one with the option noauto, or correct --crypto"
        ))
    })
}

fn missing_disk(what: &str, device: &Path) -> ClientError {
    ClientError::MissingDisk(format!(
        "{what} is not available: {} does not exist",
        escape_path(device)
    ))
}

fn unlock_args(program: &str, entry: &CrypttabEntry) -> Result<Vec<OsString>> {
    let device = entry.device.clone().into_os_string();
    let key_file = entry.key_file.as_deref();
    let mut args: Vec<OsString> = vec![program.into()];
    if program == "cryptdisks_start" {
        args.push(entry.name.clone().into());
    } else if program.ends_with("systemd-cryptsetup") {
        let options = entry.options.join(",");
        args.extend(["attach".into(), OsString::from(&entry.name), device]);
        args.extend([key_file.unwrap_or("none"), &options].map(OsString::from));
    } else {
        args.push("open".into());
        args.extend(cryptsetup_options(entry)?.into_iter().map(OsString::from));
        args.extend(key_file.map(|file| OsString::from(format!("--key-file={file}"))));
        args.extend(["--".into(), device, OsString::from(&entry.name)]);
    }
    Ok(args)
}

fn lock_args(program: &str, entry: &CrypttabEntry) -> Vec<OsString> {
    let args = match program {
        "cryptdisks_start" => ["cryptdisks_stop", ""],
        program if program.ends_with("systemd-cryptsetup") => [program, "detach"],
        program => [program, "close"],
    };
    let args = args.iter().filter(|word| !word.is_empty()).map(OsString::from);
    args.chain([OsString::from(&entry.name)]).collect()
}

/// Translates options of crypttab to those of cryptsetup.
fn cryptsetup_options(entry: &CrypttabEntry) -> Result<Vec<String>> {
    let mut options = Vec::new();
    for option in &entry.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "discard" => options.push("--allow-discards".to_string()),
            "readonly" | "read-only" => options.push("--readonly".to_string()),
            "header" | "key-slot" | "keyfile-offset" | "keyfile-size" | "tries" => {
                options.push(format!("--{key}={value}"));
            }
            "plain" | "swap" | "tmp" | "tcrypt" | "tcrypthidden" | "bitlk" | "loop" => {
                let name = escape(entry.name.as_bytes());
                return Err(ClientError::Refused(format!(
                    "{CRYPTTAB} has the option {key} for {name}, and only LUKS devices can be \
                     unlocked with cryptsetup alone; install cryptdisks_start"
                )));
            }
            // All other options apply only while the system boots.
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_gets_its_arguments_to_unlock_and_lock() {
        let text =
            "backup /dev/sdz1 /root/key luks,noauto,discard,tries=2\nasked /dev/sdz2 none luks\n";
        let entry = crypttab_entry(text, "backup").expect("an entry");
        let asked = crypttab_entry(text, "asked").expect("an entry");
        let unlock = |program, entry| {
            let args = unlock_args(program, entry).expect("words");
            args.iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let lock = |program| {
            let args = lock_args(program, &entry);
            args.iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(unlock("cryptdisks_start", &entry), "cryptdisks_start backup");
        assert_eq!(lock("cryptdisks_start"), "cryptdisks_stop backup");
        assert_eq!(
            unlock("/lib/systemd/systemd-cryptsetup", &entry),
            "/lib/systemd/systemd-cryptsetup attach backup /dev/sdz1 /root/key \
             luks,noauto,discard,tries=2"
        );
        assert_eq!(
            lock("/lib/systemd/systemd-cryptsetup"),
            "/lib/systemd/systemd-cryptsetup detach backup"
        );
        assert_eq!(
            unlock("cryptsetup", &entry),
            "cryptsetup open --allow-discards --tries=2 --key-file=/root/key -- /dev/sdz1 backup"
        );
        assert_eq!(unlock("cryptsetup", &asked), "cryptsetup open -- /dev/sdz2 asked");
        assert_eq!(lock("cryptsetup"), "cryptsetup close backup");
        let plain = crypttab_entry("x /dev/sdz1 none plain\n", "x").expect("an entry");
        assert!(unlock_args("cryptsetup", &plain).is_err());
    }
}
