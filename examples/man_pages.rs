//! Writes the man pages of both programs from the definition of their command lines: one for each
//! program, and one for each command of rsyncd-snapshot. `packaging/man-pages` runs it.
//!
//!     cargo run --example man_pages -- DIRECTORY DATE

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use rsyncd_snapshot::internals::command_lines;

/// The page of a command, without `SEE ALSO`, which `packaging/man-pages` adds.
fn page(command: &Command, section: &str, date: &str) -> Result<String, Box<dyn Error>> {
    let source = format!("rsyncd-snapshot {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).section(section).date(date).source(source);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8(page)?;
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if !notes.is_empty() {
        page += &format!(".SH NOTES\n{}", notes_in_roff(&notes));
    }
    Ok(page)
}

/// What is below the options in the help: paragraphs, and indented examples.
fn notes_in_roff(notes: &str) -> String {
    let (mut roff, mut is_example) = (String::new(), false);
    for line in notes.lines() {
        let begins_example = line.starts_with("    ");
        if begins_example != is_example && !line.is_empty() {
            roff += if begins_example { ".PP\n.RS 4\n.nf\n" } else { ".fi\n.RE\n.PP\n" };
            is_example = begins_example;
        }
        let text = line.trim_start().replace('\\', "\\e").replace('-', "\\-");
        roff += &match (line.is_empty(), text.starts_with(['.', '\''])) {
            (true, _) if is_example => String::new(),
            (true, _) => ".PP\n".to_string(),
            (false, true) => format!("\\&{text}\n"),
            (false, false) => format!("{text}\n"),
        };
    }
    if is_example {
        roff += ".fi\n.RE\n";
    }
    roff
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, date] = arguments.as_slice() else {
        return Err("usage: man_pages DIRECTORY DATE".into());
    };
    let directory = Path::new(directory);
    let [server, client] = command_lines();
    let mut server = server.disable_help_subcommand(true);
    server.build();
    fs::write(directory.join("rsyncd-snapshot.8"), page(&server, "8", date)?)?;
    for command in server.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("rsyncd-snapshot-{}.8", command.get_name());
        fs::write(directory.join(name), page(command, "8", date)?)?;
    }
    fs::write(directory.join("rsync-system-backup.1"), page(&client, "1", date)?)?;
    Ok(())
}
