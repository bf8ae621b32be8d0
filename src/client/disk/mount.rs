//! The backup disk: unlocked and mounted for a run, and after it as it was before.
//!
//! Whatever this run has unlocked or mounted is noted the moment it is there, even if the command
//! that did it then fails, and [`Disk::put_back`] undoes it in reverse order. What was unlocked or
//! mounted before is somebody else's and stays. A signal that comes meanwhile waits until all is
//! undone.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::disk::tables::{CryptEntry, crypt_entry, mounted_device};
use crate::client::failure::{Failure, Result};
use crate::client::place::{Place, Privilege};
use crate::client::signals;
use crate::tell::escape::{escape, escape_path};

const CRYPTTAB: &str = "/etc/crypttab";
const FSTAB: &str = "/etc/fstab";

/// Programs that unlock what crypttab names, the one that understands most of it first.
const UNLOCKERS: [&str; 5] = [
    "cryptdisks_start",
    "/usr/lib/systemd/systemd-cryptsetup",
    "/lib/systemd/systemd-cryptsetup",
    "systemd-cryptsetup",
    "cryptsetup",
];

/// How often a busy file system is tried again: a desktop that looks at a new disk does not take
/// long.
const UNMOUNT_TRIES: u32 = 5;
const UNMOUNT_PAUSE: Duration = Duration::from_secs(2);

/// How long a device file is waited for.
const DEVICE_TRIES: u32 = 50;
const UNEXPECTED_DEVICE_TRIES: u32 = 10;
const DEVICE_PAUSE: Duration = Duration::from_millis(100);

/// The disk that a run needs.
pub(crate) struct Disk<'a> {
    place: &'a Place,
    crypt: Option<CryptEntry>,
    mount_point: Option<&'a Path>,
    undo: Vec<Undo>,
}

/// Something that this run did and has to undo.
enum Undo {
    Lock { words: Vec<OsString> },
    Unmount { mount_point: PathBuf },
}

impl<'a> Disk<'a> {
    /// Finds the device of `crypto` and of the mount point, changing nothing.
    ///
    /// # Errors
    /// [`Failure::MissingDisk`] if the device is not there; or if no table names it.
    pub(crate) fn find(
        place: &'a Place,
        crypto: Option<&str>,
        mount_point: Option<&'a Path>,
    ) -> Result<Self> {
        let crypt = crypto.map(|name| find_crypt_entry(place, name)).transpose()?;
        let disk = Disk { place, crypt, mount_point, undo: Vec::new() };
        if let Some(entry) = &disk.crypt
            && !disk.is_unlocked(entry)?
            && !place.exists(&entry.device)?
        {
            return Err(missing(
                &format!("the encrypted device {}", escape(entry.name.as_bytes())),
                &entry.device,
            ));
        }
        if let Some(mount_point) = mount_point {
            disk.look_for_file_system(mount_point)?;
        }
        Ok(disk)
    }

    /// What fstab mounts has to be there, unless it comes into being when the device is unlocked.
    fn look_for_file_system(&self, mount_point: &Path) -> Result<()> {
        if self.is_mounted(mount_point)? {
            return Ok(());
        }
        let text = self.place.read(Path::new(FSTAB))?.unwrap_or_default();
        let Some(device) = mounted_device(&text, mount_point) else {
            let path = escape_path(mount_point);
            return Err(Failure::Refused(format!(
                "{FSTAB} has no entry for {path}, and it is not mounted: write one with the option noauto, or correct --mount"
            )));
        };
        match device {
            Some(device)
                if self.crypt.is_none()
                    && device.starts_with("/dev/mapper")
                    && !self.place.exists(&device)? =>
            {
                Err(Failure::Refused(format!(
                    "{} does not exist: name it with --crypto, so that it is unlocked",
                    escape_path(&device)
                )))
            }
            Some(device) if self.crypt.is_none() && !self.place.exists(&device)? => {
                Err(missing(&format!("the file system of {}", escape_path(mount_point)), &device))
            }
            _ => Ok(()),
        }
    }

    /// Unlocks and mounts what is not yet.
    ///
    /// # Errors
    /// If that fails. What was done until then is undone by [`Disk::put_back`].
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if let Some(entry) = self.crypt.clone() {
            self.unlock(&entry)?;
        }
        match self.mount_point {
            Some(mount_point) => self.mount(mount_point),
            None => Ok(()),
        }
    }

    fn unlock(&mut self, entry: &CryptEntry) -> Result<()> {
        let name = escape(entry.name.as_bytes());
        if self.is_unlocked(entry)? {
            log::info!("the encrypted device {name} is already unlocked");
            return Ok(());
        }
        let program =
            self.place.first_installed(&UNLOCKERS)?.ok_or_else(|| Failure::NoProgram {
                program: "cryptdisks_start or cryptsetup".into(),
                remedy: "install the package cryptsetup".into(),
            })?;
        log::info!("unlocking the encrypted device {name}");
        let ran =
            self.place.prompting_call(&unlock_words(program, entry)?, Privilege::Root).succeed();
        let is_unlocked = signals::shielded(|| self.becomes_unlocked(entry, ran.is_ok()));
        // What cannot be seen may be there.
        if !matches!(is_unlocked, Ok(false)) {
            self.undo.push(Undo::Lock { words: lock_words(program, entry) });
        }
        ran?;
        match is_unlocked? {
            true => Ok(()),
            false => Err(Failure::Failed(format!(
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
        let words = [OsStr::new("mount"), mount_point.as_os_str()];
        let ran = self.place.call(&words, Privilege::Root).succeed();
        let is_mounted = signals::shielded(|| self.is_mounted(mount_point));
        if !matches!(is_mounted, Ok(false)) {
            self.undo.push(Undo::Unmount { mount_point: mount_point.to_path_buf() });
        }
        ran?;
        match is_mounted? {
            true => Ok(()),
            false => Err(Failure::Failed(format!("mount did not mount {path}"))),
        }
    }

    fn is_unlocked(&self, entry: &CryptEntry) -> Result<bool> {
        self.place.exists(&Path::new("/dev/mapper").join(&entry.name))
    }

    /// Whether the device is there, or comes soon: it is udev that makes its file, also when what
    /// has unlocked it was killed at that.
    fn becomes_unlocked(&self, entry: &CryptEntry, is_expected: bool) -> Result<bool> {
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
        // Of a directory that does not exist it says 1, too; newer ones say 32.
        let words = [OsStr::new("mountpoint"), OsStr::new("-q"), mount_point.as_os_str()];
        let ended = self.place.call(&words, Privilege::Own).run()?;
        match ended.status {
            Some(0) => Ok(true),
            Some(1 | 32) => Ok(false),
            _ => Err(ended.failure()),
        }
    }

    /// Unmounts and locks what this run has mounted and unlocked, in reverse order. What cannot be
    /// undone does not keep the rest from it.
    ///
    /// # Errors
    /// All that went wrong.
    pub(crate) fn put_back(&mut self) -> std::result::Result<(), Vec<Failure>> {
        let undo = std::mem::take(&mut self.undo);
        let failures: Vec<Failure> = signals::shielded(|| {
            undo.iter().rev().filter_map(|undo| self.undo(undo).err()).collect()
        });
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn undo(&self, undo: &Undo) -> Result<()> {
        match undo {
            Undo::Unmount { mount_point } => self.unmount(mount_point),
            Undo::Lock { words } => {
                log::info!("locking the encrypted device again");
                self.place.call(words, Privilege::Root).succeed().map(drop)
            }
        }
    }

    fn unmount(&self, mount_point: &Path) -> Result<()> {
        log::info!("unmounting {}", escape_path(mount_point));
        let words = [OsStr::new("umount"), mount_point.as_os_str()];
        let mut tries = 1;
        loop {
            match self.place.call(&words, Privilege::Root).succeed() {
                Ok(_) => return Ok(()),
                Err(Failure::Command { said, .. })
                    if said.contains("busy") && tries < UNMOUNT_TRIES =>
                {
                    log::debug!("{} is busy; trying again", escape_path(mount_point));
                    std::thread::sleep(UNMOUNT_PAUSE);
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

fn find_crypt_entry(place: &Place, name: &str) -> Result<CryptEntry> {
    let text = place.read(Path::new(CRYPTTAB))?.unwrap_or_default();
    crypt_entry(&text, name).ok_or_else(|| {
        let name = escape(name.as_bytes());
        Failure::Refused(format!(
            "{CRYPTTAB} has no entry {name}: write one with the option noauto, or correct --crypto"
        ))
    })
}

fn missing(what: &str, device: &Path) -> Failure {
    Failure::MissingDisk(format!("{what} is not available: {} does not exist", escape_path(device)))
}

fn unlock_words(program: &str, entry: &CryptEntry) -> Result<Vec<OsString>> {
    let device = entry.device.clone().into_os_string();
    let key_file = entry.key_file.as_deref();
    let mut words: Vec<OsString> = vec![program.into()];
    if program == "cryptdisks_start" {
        words.push(entry.name.clone().into());
    } else if program.ends_with("systemd-cryptsetup") {
        let options = entry.options.join(",");
        words.extend(["attach".into(), OsString::from(&entry.name), device]);
        words.extend([key_file.unwrap_or("none"), &options].map(OsString::from));
    } else {
        words.push("open".into());
        words.extend(cryptsetup_options(entry)?.into_iter().map(OsString::from));
        words.extend(key_file.map(|file| OsString::from(format!("--key-file={file}"))));
        words.extend(["--".into(), device, OsString::from(&entry.name)]);
    }
    Ok(words)
}

fn lock_words(program: &str, entry: &CryptEntry) -> Vec<OsString> {
    let words = match program {
        "cryptdisks_start" => ["cryptdisks_stop", ""],
        program if program.ends_with("systemd-cryptsetup") => [program, "detach"],
        program => [program, "close"],
    };
    let words = words.iter().filter(|word| !word.is_empty()).map(OsString::from);
    words.chain([OsString::from(&entry.name)]).collect()
}

/// The options of crypttab as cryptsetup itself takes them.
fn cryptsetup_options(entry: &CryptEntry) -> Result<Vec<String>> {
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
                return Err(Failure::Refused(format!(
                    "{CRYPTTAB} has the option {key} for {name}, and only LUKS devices can be unlocked with cryptsetup alone; install cryptdisks_start"
                )));
            }
            // The others are about booting.
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_gets_what_it_needs_to_unlock_and_to_lock() {
        let text =
            "backup /dev/sdz1 /root/key luks,noauto,discard,tries=2\nasked /dev/sdz2 none luks\n";
        let entry = crypt_entry(text, "backup").expect("an entry");
        let asked = crypt_entry(text, "asked").expect("an entry");
        let unlock = |program, entry| {
            let words = unlock_words(program, entry).expect("words");
            words
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let lock = |program| {
            let words = lock_words(program, &entry);
            words
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(unlock("cryptdisks_start", &entry), "cryptdisks_start backup");
        assert_eq!(lock("cryptdisks_start"), "cryptdisks_stop backup");
        assert_eq!(
            unlock("/lib/systemd/systemd-cryptsetup", &entry),
            "/lib/systemd/systemd-cryptsetup attach backup /dev/sdz1 /root/key luks,noauto,discard,tries=2"
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
        let plain = crypt_entry("x /dev/sdz1 none plain\n", "x").expect("an entry");
        assert!(unlock_words("cryptsetup", &plain).is_err());
    }
}
