//! `import-policy`: prints the policy that takes over from a `rotate-backups.ini`.
//!
//! It changes no file. The comments that it prints say what the administrator has to know or do.
//! They and the names in headers hold text of the file, so both are escaped in one place each.

use std::collections::BTreeSet;
use std::path::Path;

use crate::migrate::location::SectionLocation;
use crate::migrate::module::{AssignedModule, SectionAssignment, spellings};
use crate::migrate::table::PolicyTable;
use crate::migrate::{self, TranslatedSection};
use crate::module::context::Context;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, one_line};
use crate::tell::exit::Exit;
use crate::tell::output::print_whole;

/// Prints the translation of `file`.
///
/// # Errors
/// [`Error::Policy`] with every mistake in the file, and [`Error::Usage`] if it or `rsyncd.conf`
/// cannot be read.
pub(crate) fn run(context: &Context, file: &Path) -> Result<Exit> {
    let text = std::fs::read(file).map_err(|cause| {
        let hint = "name the configuration of rotate-backups, such as /etc/rotate-backups.ini";
        Error::Usage(format!("cannot read {}: {cause}; {hint}", escape_path(file)))
    })?;
    let sections = migrate::read(file, &text)?;
    let assignment = SectionAssignment::of(&sections, &context.settings)?;
    let conf = escape_path(&context.settings.rsyncd_conf);
    let mut document = PolicyDocument::new(&assignment, &conf);
    document.write_preface(file, &assignment.left);
    for index in 0..sections.len() {
        document.write_section(&sections, index, &assignment);
    }
    print_whole(&document.text)?;
    if document.by_hand == 0 {
        return Ok(Exit::Done);
    }
    let places = counted(document.by_hand, "table");
    log::warn!("{}: {places} marked TODO must be completed by hand", escape_path(file));
    Ok(Exit::Warnings)
}

/// The longest line of a comment, unless a word is longer.
const WIDTH: usize = 100;

/// The TOML that is being written.
struct PolicyDocument<'a> {
    text: String,
    /// Where modules were looked for, escaped.
    conf: &'a str,
    has_conf: bool,
    /// The names of tables so far, and of modules: a suggested name must be none of them.
    names: BTreeSet<String>,
    /// How many tables are marked TODO for the administrator.
    by_hand: usize,
}

impl<'a> PolicyDocument<'a> {
    fn new(assignment: &SectionAssignment, conf: &'a str) -> Self {
        let assigned = assignment.assigned.iter().map(|assigned| assigned.name.clone());
        let names = assigned.chain(assignment.left.iter().cloned()).collect();
        PolicyDocument {
            text: String::new(),
            conf,
            has_conf: assignment.has_conf,
            names,
            by_hand: 0,
        }
    }

    /// The comments before all tables, and `[defaults]`.
    fn write_preface(&mut self, file: &Path, left: &[String]) {
        self.write_comment(&format!(
            "Translated by `rsyncd-snapshot import-policy` from {}. Read the comments, do what \
             those marked TODO say, install it as /etc/rsyncd-snapshot.toml, then run \
             `rsyncd-snapshot check` and, for each module, `rsyncd-snapshot plan`.",
            escape_path(file)
        ));
        self.write_comment(
            "It decides what rotate-backups decided, but keeps the newest snapshot, min_keep of \
             them and those younger than min_age, and expires at most max_expire in a run; see \
             docs/migrating.md. Options on the command line of rotate-backups, in a cron job for \
             example, are not in its file and not here.",
        );
        self.write_line("");
        self.write_line("[defaults]");
        if !left.is_empty() {
            self.write_comment(&format!(
                "No section is about these modules of {}. The defaults hold for them, which are \
                 those of rsync-system-backup: {}",
                self.conf,
                left.join(", ")
            ));
        }
    }

    /// The tables of the section at `index`, or comments that say why there is none.
    fn write_section(
        &mut self,
        sections: &[TranslatedSection],
        index: usize,
        assignment: &SectionAssignment,
    ) {
        let section = &sections[index];
        self.write_line("");
        self.write_comment(&format!("[{}] in line {}", section.name, section.line));
        let assigned: Vec<&AssignedModule> =
            assignment.assigned.iter().filter(|one| one.section == index).collect();
        let Some((first, others)) = assigned.split_first() else {
            return self.write_without_module(sections, index, assignment);
        };
        self.write_header(first, assignment, section.table.is_held);
        self.write_entries(&section.table);
        for other in others {
            self.write_line("");
            self.write_header(other, assignment, section.table.is_held);
            self.write_entries_again(&section.table, &first.name);
        }
    }

    fn write_without_module(
        &mut self,
        sections: &[TranslatedSection],
        index: usize,
        assignment: &SectionAssignment,
    ) {
        let section = &sections[index];
        match &section.location {
            SectionLocation::Remote { host, directory } => {
                self.write_remote(section, host, directory)
            }
            SectionLocation::Relative => {
                let todo = "TODO: this is not an absolute path, so which directory it is depends \
                    on where rotate-backups was started. Give this table the name of the module \
                    that has its directory in it.";
                self.write_suggested(&section.name, &section.table, todo);
            }
            SectionLocation::Directory(directory) => {
                self.write_unassigned(sections, index, directory, assignment)
            }
            SectionLocation::Pattern(pattern) => {
                self.write_unassigned(sections, index, &pattern.text, assignment)
            }
        }
    }

    /// The header of a module's table, and the entries that only this module has.
    fn write_header(
        &mut self,
        assigned: &AssignedModule,
        assignment: &SectionAssignment,
        is_held: bool,
    ) {
        let shares_root =
            |other: &&AssignedModule| other.root == assigned.root && other.name != assigned.name;
        let mut todo = Vec::new();
        if assigned.is_root_itself {
            todo.push(format!(
                "TODO: the module is the directory of the snapshots itself, {0}. Change its `path` \
                 to {0}/latest, and let clients push to the module instead of to `latest` in it.",
                escape_path(&assigned.root)
            ));
        }
        if let Some(other) = assignment.assigned.iter().find(shares_root) {
            todo.push(format!(
                "TODO: {} has its snapshots in {} as well. Give one of the two a snapshot_root of \
                 its own.",
                other.name,
                escape_path(&assigned.root)
            ));
        }
        self.by_hand += usize::from(!todo.is_empty() || is_held);
        todo.iter().for_each(|todo| self.write_comment(todo));
        self.write_line(&format!("[module.{}]", key(&assigned.name)));
        if let Some(snapshot_root) = &assigned.snapshot_root {
            self.write_comment("From the policy in use.");
            self.write_line(&format!("snapshot_root = {}", quoted(snapshot_root)));
        }
    }

    /// A section that no module takes its table from. Another section may have been in force
    /// instead.
    fn write_unassigned(
        &mut self,
        sections: &[TranslatedSection],
        index: usize,
        directory: &str,
        assignment: &SectionAssignment,
    ) {
        let directories = spellings(directory.into());
        let location = &sections[index].location;
        let is_about =
            |one: &&AssignedModule| location.matches(&one.root) || directories.contains(&one.root);
        let taken = assignment.assigned.iter().find(is_about);
        let by_text = || assignment.in_force(sections, &directories).unwrap_or(index);
        let in_force = taken.map_or_else(by_text, |one| one.section);
        if in_force != index {
            let TranslatedSection { name, line, .. } = &sections[in_force];
            self.write_comment(&format!(
                "This had no effect: rotate-backups took [{name}] in line {line}, which matches as \
                 well and sorts before it."
            ));
        }
        if taken.is_none() {
            let todo = self.todo_without_module(directory);
            self.write_suggested(directory, &sections[in_force].table, &todo);
        }
    }

    fn todo_without_module(&self, directory: &str) -> String {
        let latest = format!("{}/latest", directory.trim_end_matches('/'));
        match self.has_conf {
            true => format!(
                "TODO: no module of {} has its directory directly in {directory}. Give the module \
                 that clients push to `path = {latest}`, and this table its name.",
                self.conf
            ),
            false => format!(
                "TODO: there is no {} to look for modules in. Give this table the name of the \
                 module whose directory is in {directory}; `path = {latest}` is usual.",
                self.conf
            ),
        }
    }

    /// A table under a name that no module has yet.
    fn write_suggested(&mut self, directory: &str, table: &PolicyTable, todo: &str) {
        self.by_hand += 1;
        self.write_comment(todo);
        let name = self.free_name(directory);
        self.write_line(&format!("[module.{}]", key(&name)));
        self.write_entries(table);
    }

    /// A table for another machine, commented out.
    fn write_remote(&mut self, section: &TranslatedSection, host: &str, directory: &str) {
        self.by_hand += 1;
        self.write_comment(&format!(
            "TODO: this is on another machine. Install rsyncd-snapshot on {host}, where \
             {directory} is, and put this table into the policy there, under the name of its \
             module."
        ));
        let mut there = PolicyDocument { text: String::new(), names: self.names.clone(), ..*self };
        let name = there.free_name(directory);
        there.write_line(&format!("[module.{}]", key(&name)));
        there.write_entries(&section.table);
        self.names.insert(name);
        for line in there.text.lines() {
            self.write_line(&if line.starts_with('#') {
                line.to_string()
            } else {
                format!("#{line}")
            });
        }
    }

    fn write_entries(&mut self, table: &PolicyTable) {
        for entry in &table.entries {
            entry.note.iter().for_each(|note| self.write_comment(note));
            entry.key.iter().for_each(|key| self.write_line(key));
        }
    }

    /// The entries of a table without their notes, which are in the table of module `first`.
    fn write_entries_again(&mut self, table: &PolicyTable, first: &str) {
        self.write_comment(&format!("As in the table of {first}."));
        table
            .entries
            .iter()
            .filter_map(|entry| entry.key.as_ref())
            .for_each(|key| self.write_line(key));
    }

    /// A name for a table that no table and no module has yet, made from the directory's name.
    fn free_name(&mut self, directory: &str) -> String {
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let last_part =
            directory.rsplit('/').find(|part| part.contains(|c: char| c.is_ascii_alphanumeric()));
        let plain = |character: char| if is_plain(character) { character } else { '-' };
        let wanted: String =
            last_part.unwrap_or("module").chars().filter(|c| *c != '*').map(plain).collect();
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        let name = names.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    /// Writes a paragraph of comment. `text` may hold line breaks; they are escaped, so no line of
    /// it leaves the comment.
    fn write_comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in one_line(text).split(' ') {
            if line.len() > 1 && line.chars().count() + word.chars().count() >= WIDTH {
                self.write_line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.write_line(&line);
    }

    fn write_line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// A key of TOML.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.bytes().all(is_bare) { name.to_string() } else { quoted(name) }
}

/// A string of TOML, with `\U` escapes for all but letters, digits and printable ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ if character.is_alphanumeric() => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    quoted + "\""
}
