//! Adds up what the options of a transfer do: which kind of transfer it is, and whether it rewrites
//! files.

use crate::decide::arguments::options::{self, OptionEffect};
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::arguments::transfer_kind::TransferKind;

/// What all options of a transfer together do.
#[derive(Debug, Default)]
pub(crate) struct CombinedEffect {
    pub(crate) sender: bool,
    dry_run: bool,
    list_only: bool,
    recursive: bool,
    directories: bool,
    existing: bool,
    ignore_existing: bool,
    deletes: bool,
    removes_source: bool,
    only_batch: bool,
    inplace: bool,
    /// 1 for `--append`, 2 or more for `--append-verify`.
    append: usize,
    write_devices: bool,
}

impl CombinedEffect {
    pub(crate) fn of(effects: &[OptionEffect]) -> Self {
        let mut combined = CombinedEffect::default();
        for effect in effects {
            combined.add(*effect);
        }
        combined
    }

    fn add(&mut self, effect: OptionEffect) {
        match effect {
            OptionEffect::Sender => self.sender = true,
            OptionEffect::DryRun => self.dry_run = true,
            OptionEffect::ListOnly => self.list_only = true,
            OptionEffect::Recursive(recursive) => self.recursive = recursive,
            OptionEffect::Directories(directories) => self.directories = directories,
            OptionEffect::Existing => self.existing = true,
            OptionEffect::IgnoreExisting => self.ignore_existing = true,
            OptionEffect::Delete => self.deletes = true,
            OptionEffect::RemoveSource => self.removes_source = true,
            OptionEffect::OnlyBatch => self.only_batch = true,
            OptionEffect::Batch => self.only_batch = false,
            OptionEffect::Inplace(inplace) => self.inplace = inplace,
            OptionEffect::Append => self.append += 1,
            OptionEffect::AppendVerify => self.append = 2,
            OptionEffect::NoAppend => self.append = 0,
            OptionEffect::WriteDevices(write_devices) => self.write_devices = write_devices,
            OptionEffect::Other => {}
        }
    }

    /// The options in effect that rewrite files. None if rsyncd sends files and removes them
    /// afterwards: a sender rewrites no file.
    pub(crate) fn rewriting(&self) -> Vec<RewritingOption> {
        if self.sender && self.kind().writes() { Vec::new() } else { self.named_rewriting() }
    }

    pub(crate) fn kind(&self) -> TransferKind {
        if self.dry_run || self.only_batch {
            return if self.sender && self.lists() {
                TransferKind::Listing
            } else {
                TransferKind::DryRun
            };
        }
        if self.sender {
            return self.kind_of_sender();
        }
        // This holds with `--list-only`, too: no client pushes with that option, and rsyncd does
        // not prevent every write because of it.
        let writes_no_file = self.existing && self.ignore_existing && self.deletes;
        if writes_no_file { TransferKind::DeletionOnly } else { TransferKind::Push }
    }

    fn kind_of_sender(&self) -> TransferKind {
        if self.removes_source {
            TransferKind::DeletionOnly
        } else if self.lists() {
            TransferKind::Listing
        } else {
            TransferKind::Pull
        }
    }

    fn lists(&self) -> bool {
        self.list_only || self.directories && !self.recursive
    }

    fn named_rewriting(&self) -> Vec<RewritingOption> {
        let in_effect = [
            (RewritingOption::Inplace, self.inplace),
            (RewritingOption::Append, self.append == 1),
            (RewritingOption::AppendVerify, self.append > 1),
            (RewritingOption::WriteDevices, self.write_devices),
        ];
        in_effect
            .into_iter()
            .filter(|(_, in_effect)| *in_effect)
            .map(|(rewriting, _)| rewriting)
            .collect()
    }
}

/// The rewriting options in a list that holds a word which was not understood. Every word that
/// looks like such an option counts.
pub(crate) fn suspected_rewriting(arguments: &[Vec<u8>]) -> Vec<RewritingOption> {
    let rewrites = |effect: &OptionEffect| {
        use OptionEffect::{Append, AppendVerify, Inplace, WriteDevices};
        matches!(effect, Inplace(true) | Append | AppendVerify | WriteDevices(true))
    };
    let effects: Vec<OptionEffect> = arguments
        .iter()
        .filter_map(|word| word.strip_prefix(b"--"))
        .filter_map(|long| long.split(|byte| *byte == b'=').next())
        .filter_map(options::long)
        .map(|option| option.effect)
        .filter(rewrites)
        .collect();
    CombinedEffect::of(&effects).named_rewriting()
}
