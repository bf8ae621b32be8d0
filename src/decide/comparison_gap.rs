//! What of a snapshot cannot be compared with what was recorded when it was taken, since a record,
//! the directory index or the inode log is missing, damaged or of a newer version.
//!
//! A snapshot of another program or of an earlier version never had them. That is said of it, too,
//! but is no damage.

/// How a file of the program's own was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFile {
    /// It can be read.
    Readable,
    /// It is not there.
    Missing,
    /// An earlier or a later version of the program has written it, and it is no damage that this
    /// version cannot use it.
    OfAnotherVersion,
    /// It is damaged, of a newer version, or the disk has an error; with the cause.
    Unreadable(String),
}

/// What there is to compare a snapshot with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedFiles {
    /// Its record.
    pub record: OwnFile,
    /// Whether its record says that another program made it.
    pub is_adopted: bool,
    /// Whether its record says that it has an index.
    pub has_index: bool,
    /// Its directory index.
    pub index: OwnFile,
    /// The inode log of the root.
    pub inode_log: OwnFile,
    /// Whether the inode log says when the snapshot was taken.
    pub is_in_log: bool,
    /// How many bytes of the inode log are damaged.
    pub damaged_log_bytes: u64,
}

/// Something that is not compared, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparisonGap {
    /// What and why, without the snapshot's name.
    pub text: String,
    /// Whether something was lost. Otherwise there never was anything to compare with.
    pub is_loss: bool,
}

impl ComparisonGap {
    /// A gap because something was lost.
    pub fn loss(text: String) -> Self {
        ComparisonGap { text, is_loss: true }
    }

    /// A gap that nothing can be done about.
    pub fn known(text: &str) -> Self {
        ComparisonGap { text: text.to_string(), is_loss: false }
    }
}

const NOT_COUNTED: &str = "so its entries are not counted";
const NOT_FOUND: &str = "so added, removed or renamed files may not be found";
const NOT_ALTERED: &str = "so altered files are not found";

impl RecordedFiles {
    /// What cannot be compared of the entries of the snapshot.
    pub fn gaps_of_entries(&self) -> Vec<ComparisonGap> {
        if self.is_of_another_program() {
            return vec![ComparisonGap::known(
                "another program made it or moved it back, so it is not known which entries it had",
            )];
        }
        let record = gap("its record", &self.record, NOT_COUNTED);
        let index = match &self.index {
            OwnFile::Missing if !self.has_index && record.is_none() => Some(ComparisonGap::known(
                "it has no directory index, since an earlier version made it or `release --damage` \
                 accepted its entries, so renamed files are not found",
            )),
            index => gap("its directory index", index, NOT_FOUND),
        };
        [record, index].into_iter().flatten().collect()
    }

    /// What cannot be compared of the files of the snapshot.
    pub fn gap_of_files(&self) -> Option<ComparisonGap> {
        match (&self.inode_log, self.damaged_log_bytes) {
            (OwnFile::Missing, _) if self.is_of_another_program() => None,
            (OwnFile::Readable, 0) if self.is_in_log || self.is_of_another_program() => None,
            (OwnFile::Readable, 0) => Some(ComparisonGap::known(
                "the inode log does not have its files as they were when it was taken, so they are \
                 compared with what a later run found",
            )),
            (OwnFile::Readable, bytes) => Some(ComparisonGap::loss(format!(
                "{bytes} bytes of the inode log are damaged, so altered files may not be found"
            ))),
            (file, _) => gap("the inode log", file, NOT_ALTERED),
        }
    }

    /// Whether another program made the snapshot, or moved it back after it had vanished. Then it
    /// has neither a record of its own nor an index.
    fn is_of_another_program(&self) -> bool {
        self.is_adopted || self.record == OwnFile::Missing && self.index == OwnFile::Missing
    }
}

fn gap(what: &str, file: &OwnFile, consequence: &str) -> Option<ComparisonGap> {
    match file {
        OwnFile::Readable => None,
        OwnFile::Missing => Some(ComparisonGap::loss(format!("{what} is missing, {consequence}"))),
        OwnFile::OfAnotherVersion => Some(ComparisonGap {
            text: format!(
                "another version of rsyncd-snapshot wrote {what}, and this one cannot read it, \
                 {consequence}"
            ),
            is_loss: false,
        }),
        OwnFile::Unreadable(why) => {
            Some(ComparisonGap::loss(format!("{what} cannot be read, {consequence}: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnFile::{Missing, OfAnotherVersion, Readable};
    use super::*;

    const WHOLE: RecordedFiles = RecordedFiles {
        record: Readable,
        is_adopted: false,
        has_index: true,
        index: Readable,
        inode_log: Readable,
        is_in_log: true,
        damaged_log_bytes: 0,
    };

    #[test]
    fn only_what_was_there_once_is_lost() {
        let bad = || OwnFile::Unreadable("bad".to_string());
        let adopted = RecordedFiles {
            is_adopted: true,
            has_index: false,
            index: Missing,
            is_in_log: false,
            ..WHOLE
        };
        let never = RecordedFiles { has_index: false, index: Missing, ..WHOLE };
        for (files, entries, of_files) in [
            (WHOLE, vec![], None),
            (RecordedFiles { index: Missing, ..WHOLE }, vec![true], None),
            (RecordedFiles { index: bad(), ..WHOLE }, vec![true], None),
            (RecordedFiles { index: OfAnotherVersion, ..WHOLE }, vec![false], None),
            (RecordedFiles { record: bad(), ..WHOLE }, vec![true], None),
            (RecordedFiles { record: Missing, has_index: false, ..WHOLE }, vec![true], None),
            (RecordedFiles { record: bad(), ..never.clone() }, vec![true, true], None),
            (never, vec![false], None),
            (RecordedFiles { inode_log: Missing, is_in_log: false, ..WHOLE }, vec![], Some(true)),
            (RecordedFiles { inode_log: bad(), is_in_log: false, ..WHOLE }, vec![], Some(true)),
            (RecordedFiles { damaged_log_bytes: 7, ..WHOLE }, vec![], Some(true)),
            (RecordedFiles { is_in_log: false, ..WHOLE }, vec![], Some(false)),
            (adopted.clone(), vec![false], None),
            (RecordedFiles { inode_log: Missing, ..adopted.clone() }, vec![false], None),
            (RecordedFiles { inode_log: bad(), ..adopted.clone() }, vec![false], Some(true)),
            (RecordedFiles { record: Missing, is_adopted: false, ..adopted }, vec![false], None),
        ] {
            let losses: Vec<bool> = files.gaps_of_entries().iter().map(|gap| gap.is_loss).collect();
            assert_eq!(losses, entries, "{files:?}");
            assert_eq!(files.gap_of_files().map(|gap| gap.is_loss), of_files, "{files:?}");
        }
    }
}
