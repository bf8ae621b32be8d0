//! Finds devices in the text of `/etc/crypttab` and `/etc/fstab`. Pure.

use std::path::{Path, PathBuf};

/// A line of `/etc/crypttab`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrypttabEntry {
    /// The name of the unlocked device below `/dev/mapper`.
    pub name: String,
    /// The path of the encrypted device.
    pub device: PathBuf,
    /// `None` if the unlocking program asks for a passphrase.
    pub key_file: Option<String>,
    pub options: Vec<String>,
}

/// The line of `name` in the text of a crypttab.
pub(crate) fn crypttab_entry(text: &str, name: &str) -> Option<CrypttabEntry> {
    let fields = lines(text).find(|fields| fields.len() >= 2 && unescaped(fields[0]) == name)?;
    let key_file = fields.get(2).filter(|file| !["none", "-"].contains(file));
    let options = fields.get(3).map(|options| options.split(',').map(str::to_string).collect());
    Some(CrypttabEntry {
        name: name.to_string(),
        device: device_file(fields[1]).unwrap_or_else(|| PathBuf::from(unescaped(fields[1]))),
        key_file: key_file.map(|file| unescaped(file)),
        options: options.unwrap_or_default(),
    })
}

/// The device that an fstab mounts on `mount_point`. `None` means that there is no entry,
/// `Some(None)` an entry without a device of this machine, as for a network share.
pub(crate) fn mounted_device(text: &str, mount_point: &Path) -> Option<Option<PathBuf>> {
    let is_meant =
        |fields: &Vec<&str>| fields.len() >= 3 && Path::new(&unescaped(fields[1])) == mount_point;
    let fields = lines(text).filter(is_meant).last()?;
    Some(device_file(fields[0]))
}

/// The path of a device that is given as a path, a label or a UUID; `None` for any other source.
fn device_file(source: &str) -> Option<PathBuf> {
    if source.starts_with('/') && !source.starts_with("//") {
        return Some(PathBuf::from(unescaped(source)));
    }
    let (key, value) = source.split_once('=')?;
    let value = unescaped(value.trim_matches('"'));
    let directory = match key.to_ascii_uppercase().as_str() {
        // The UUIDs of FAT and NTFS are shorter, and stay in capitals.
        "UUID" if value.len() == 36 => {
            return Some(Path::new("/dev/disk/by-uuid").join(value.to_lowercase()));
        }
        "UUID" => return Some(Path::new("/dev/disk/by-uuid").join(value)),
        "PARTUUID" => return Some(Path::new("/dev/disk/by-partuuid").join(value.to_lowercase())),
        "LABEL" => "/dev/disk/by-label",
        "PARTLABEL" => "/dev/disk/by-partlabel",
        "ID" => "/dev/disk/by-id",
        _ => return None,
    };
    // udev writes a blank in a file name as `\x20`.
    Some(Path::new(directory).join(value.replace(' ', "\\x20")))
}

/// The fields of each line that is not a comment.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect())
}

/// Both tables write blanks, tabs and backslashes in octal.
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRYPTTAB: &str = "\
# <target> <source> <key> <options>
ssd UUID=31678141-3931-4683-A4D2-09EADEC81D01 none luks,discard
backup  /dev/sdz1\t/root/keys/backup  luks,noauto,tries=1
short LABEL=\"USB\"
";

    #[test]
    fn crypttab_names_device_key_and_options() {
        let entry = crypttab_entry(CRYPTTAB, "backup").expect("an entry");
        assert_eq!(entry.device, Path::new("/dev/sdz1"));
        assert_eq!(entry.key_file.as_deref(), Some("/root/keys/backup"));
        assert_eq!(entry.options, ["luks", "noauto", "tries=1"]);
        let entry = crypttab_entry(CRYPTTAB, "ssd").expect("an entry");
        assert_eq!(
            entry.device,
            Path::new("/dev/disk/by-uuid/31678141-3931-4683-a4d2-09eadec81d01")
        );
        assert_eq!(entry.key_file, None);
        let entry = crypttab_entry(CRYPTTAB, "short").expect("an entry");
        assert_eq!(
            (entry.device.as_path(), entry.options.len()),
            (Path::new("/dev/disk/by-label/USB"), 0)
        );
        assert_eq!(crypttab_entry(CRYPTTAB, "#"), None);
        assert_eq!(crypttab_entry("", "backup"), None);
    }

    #[test]
    fn fstab_names_the_device_of_a_mount_point() {
        let text = "\
# x
/dev/sda1 / ext4 defaults 0 1
LABEL=My\\040Disk /mnt/my\\040disk ext4 noauto 0 0
nas:/x /mnt/nas nfs noauto
//nas/x /mnt/cifs cifs noauto
UUID=01D5B6A8C2E4F790 /mnt/ntfs ntfs3 noauto
";
        let device = |path: &str| mounted_device(text, Path::new(path));
        assert_eq!(device("/"), Some(Some("/dev/sda1".into())));
        assert_eq!(device("/mnt/my disk/"), Some(Some("/dev/disk/by-label/My\\x20Disk".into())));
        assert_eq!(device("/mnt/ntfs"), Some(Some("/dev/disk/by-uuid/01D5B6A8C2E4F790".into())));
        assert_eq!(device("/mnt/nas"), Some(None));
        assert_eq!(device("/mnt/cifs"), Some(None));
        assert_eq!(device("/mnt"), None);
    }
}
