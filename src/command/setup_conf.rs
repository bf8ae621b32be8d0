//! Where the sections of `setup` belong in the configuration as it is now.
//!
//! The configuration is read as rsync reads it, once as it is and once as it would be, with the
//! same reader as everywhere. So nothing is guessed about the place of an `&include`, about
//! defaults, or about an unfinished last line: what matters is that afterwards each module is what
//! it was meant to be, and every other one is what it was.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::conf_files::ConfFiles;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::RsyncdModule;
use crate::decide::module_section::{self, ModuleSection, SectionState};
use crate::decide::setup_edits::{NEW_CONF, with_include, with_sections};
use crate::store::configuration_file as file;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// The directory beside rsyncd.conf for the files of modules.
const INCLUDED: &str = "rsyncd.d";

/// No module has this name, for which the defaults are looked up.
const PROBE: &[u8] = b"rsyncd-snapshot setup";

/// The files that the sections are about, as they are now.
pub(crate) struct SetupConf {
    /// rsyncd.conf, absolute.
    pub(crate) conf: PathBuf,
    /// The same without symbolic links.
    pub(crate) real_conf: PathBuf,
    /// What it holds; none if it is missing.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) directory: PathBuf,
    /// The file of the module in that directory.
    pub(crate) file: PathBuf,
    pub(crate) real_file: PathBuf,
    pub(crate) file_text: Option<Vec<u8>>,
    /// The modules as they are now; none without rsyncd.conf.
    now: Option<RsyncdConf>,
    /// The new text of rsyncd.conf if it does not include the directory yet.
    included: Option<Vec<u8>>,
    /// A module of the directory that has the defaults.
    probe: RsyncdModule,
}

/// The configuration as it would be.
pub(crate) struct PlannedConf {
    pub(crate) conf: RsyncdConf,
    /// New texts of the module's file and of rsyncd.conf.
    pub(crate) file: Option<Vec<u8>>,
    pub(crate) including: Option<Vec<u8>>,
}

impl SetupConf {
    /// Reads the files around `rsyncd_conf` for the module `name`.
    ///
    /// # Errors
    /// If one cannot be read, or rsync would stop at it.
    pub(crate) fn read(rsyncd_conf: &Path, name: &[u8]) -> Result<Self> {
        let conf = std::path::absolute(rsyncd_conf)
            .map_err(|cause| Error::io("find", rsyncd_conf, cause))?;
        let real_conf = file::file_behind(&conf)?;
        let text = file::read(&real_conf)?;
        let directory = conf.parent().unwrap_or(Path::new("/")).join(INCLUDED);
        let mut file_name = std::ffi::OsStr::from_bytes(name).to_os_string();
        file_name.push(".conf");
        let file = directory.join(file_name);
        let real_file = file::file_behind(&file)?;
        let file_text = file::read(&real_file)?;
        let read_now = || match RsyncdConf::read(&conf) {
            // A directory that is included and missing is about to be made.
            Err(error) if error.stops_rsync() && !directory.exists() => {
                let made = ConfFiles::default().with(&file, b"");
                RsyncdConf::read_from(&made, &conf).map_err(|_| error)
            }
            read => read,
        };
        let now = text.as_ref().map(|_| read_now()).transpose()?;
        let probe_text = [b"[", PROBE, b"]\n"].concat();
        let files = ConfFiles::default();
        let files = files.with(&conf, text.as_deref().unwrap_or(NEW_CONF.as_bytes()));
        let files = files.with(&file, &probe_text);
        let found = |files: &ConfFiles| {
            let read = RsyncdConf::read_from(files, &conf)?;
            Ok::<_, Error>(read.modules.into_iter().find(|module| module.name == PROBE))
        };
        let (included, probe) = match found(&files)? {
            Some(probe) => (None, Some(probe)),
            None => {
                let old = text.as_deref().unwrap_or(NEW_CONF.as_bytes());
                let new = with_include(old, directory.as_os_str().as_bytes());
                let probe = found(&files.with(&conf, &new))?;
                (Some(new), probe)
            }
        };
        let Some(probe) = probe else {
            return Err(Error::Usage(format!(
                "rsync cannot include a directory of that name: {}",
                escape_path(&directory)
            )));
        };
        Ok(SetupConf {
            conf,
            real_conf,
            text,
            directory,
            file,
            real_file,
            file_text,
            now,
            included,
            probe,
        })
    }

    /// The value that a parameter has for the module `name`, or by the defaults.
    pub(crate) fn value(&self, name: &[u8], parameter: &str) -> Option<&[u8]> {
        let module = self.now.as_ref().and_then(|now| now.module(name));
        module.unwrap_or(&self.probe).get(parameter).filter(|value| !value.is_empty())
    }

    /// The configuration with the sections, of which only the missing ones are added.
    ///
    /// # Errors
    /// If a module of such a name is something else, or another module would change.
    pub(crate) fn plan(&self, sections: &[ModuleSection]) -> Result<PlannedConf> {
        if let Some(now) = &self.now
            && missing(sections, now)?.is_empty()
        {
            let conf = now.clone();
            return Ok(PlannedConf { conf, file: None, including: None });
        }
        let old_text = self.text.as_deref().unwrap_or(NEW_CONF.as_bytes());
        let conf_text = self.included.as_deref().unwrap_or(old_text);
        let files = ConfFiles::default().with(&self.conf, conf_text);
        let file_text = self.file_text.as_deref().unwrap_or_default();
        let before = RsyncdConf::read_from(&files.clone().with(&self.file, file_text), &self.conf)?;
        let missing = missing(sections, &before)?;
        let text = with_sections(file_text, &module_section::text_of(missing.iter().copied()));
        let planned = files.with(&self.file, if missing.is_empty() { file_text } else { &text });
        let conf = RsyncdConf::read_from(&planned, &self.conf)?;
        self.ensure_meant(sections, &conf)?;
        self.ensure_others_stay(sections, &conf)?;
        let is_new = self.text.is_none();
        let including = self.included.clone().or_else(|| is_new.then(|| old_text.to_vec()));
        Ok(PlannedConf { conf, file: (!missing.is_empty()).then_some(text), including })
    }

    /// Refuses values that rsync would read as something else, such as one with a variable in it or
    /// a blank at its end.
    fn ensure_meant(&self, sections: &[ModuleSection], planned: &RsyncdConf) -> Result<()> {
        for section in sections {
            let misread = match state(section, planned) {
                SectionState::Same => misread_path(section, planned).map(|path| ("path", path)),
                SectionState::Missing => {
                    return Err(Error::Bug("a section that was planned is not read"));
                }
                SectionState::Differs { parameter, wanted, .. } => Some((parameter, wanted)),
            };
            if let Some((parameter, wanted)) = misread {
                return Err(Error::Usage(format!(
                    "rsyncd.conf cannot hold `{parameter} = {}`, which rsync would read as \
                     something else; nothing was written: choose another one",
                    escape(&wanted)
                )));
            }
        }
        Ok(())
    }

    /// Refuses a plan in which a module that `setup` is not about comes, goes or changes.
    fn ensure_others_stay(&self, sections: &[ModuleSection], planned: &RsyncdConf) -> Result<()> {
        let is_ours =
            |module: &&RsyncdModule| sections.iter().any(|section| section.name == module.name);
        let values = |module: &RsyncdModule| -> BTreeMap<Vec<u8>, Vec<u8>> {
            let settings = module.parameters.settings.iter();
            settings.map(|(name, setting)| (name.clone(), setting.value.clone())).collect()
        };
        let now = self.now.as_ref().map(|now| now.modules.as_slice()).unwrap_or_default();
        for module in planned.modules.iter().filter(|module| !is_ours(module)) {
            let before = now.iter().find(|before| before.name == module.name);
            if before.is_some_and(|before| values(before) == values(module)) {
                continue;
            }
            let what = if before.is_some() { "would change" } else { "would be served, too" };
            return Err(Error::Usage(format!(
                "{}: with `&include {}` in {}, module {} {what}; nothing was written: add that \
                 line yourself if this is right, or move the file away",
                module.place,
                escape_path(&self.directory),
                escape_path(&self.conf),
                escape(&module.name)
            )));
        }
        Ok(())
    }
}

/// The path of a section, if the module that is read of it has another one.
fn misread_path(section: &ModuleSection, conf: &RsyncdConf) -> Option<Vec<u8>> {
    let (_, wanted) = section.parameters.iter().find(|(name, _)| *name == "path")?;
    let path = conf.module(&section.name)?.path().ok();
    let is_read = path.is_some_and(|path| path.as_os_str().as_bytes() == wanted);
    (!is_read).then(|| wanted.clone())
}

/// The sections that the configuration lacks.
fn missing<'a>(sections: &'a [ModuleSection], conf: &RsyncdConf) -> Result<Vec<&'a ModuleSection>> {
    let mut missing = Vec::new();
    for section in sections {
        match state(section, conf) {
            SectionState::Same => {}
            SectionState::Missing => missing.push(section),
            SectionState::Differs { parameter, has, wanted } => {
                let module = conf.module(&section.name);
                let place = module.map(|module| module.place_of(parameter).to_string());
                let has = match has {
                    Some(value) => format!("has `{parameter} = {}`", escape(&value)),
                    None => format!("has no `{parameter}`"),
                };
                return Err(Error::Usage(format!(
                    "{}: the module {} is there already and {has}, where setup would write \
                     `{parameter} = {}`; nothing was written: change that line, take the module \
                     out, or choose another name",
                    place.unwrap_or_default(),
                    escape(&section.name),
                    escape(&wanted)
                )));
            }
        }
    }
    Ok(missing)
}

fn state(section: &ModuleSection, conf: &RsyncdConf) -> SectionState {
    let module = conf.module(&section.name);
    module_section::state(section, module.map(|module| |name: &str| module.get(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::decide::module_section::{ModuleFacts, sections};

    /// A configuration in a directory of its own; `@` stands for that.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let files_there = Files(tempfile::tempdir().expect("a directory"));
            for (name, text) in files {
                let path = files_there.path(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("made");
                fs::write(path, text.replace('@', &files_there.base())).expect("written");
            }
            files_there
        }

        fn base(&self) -> String {
            self.0.path().to_str().expect("UTF-8").to_string()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn plan(&self, root: &str) -> Result<PlannedConf> {
            let facts = ModuleFacts {
                name: b"laptop".to_vec(),
                root: root.into(),
                hook: b"/usr/bin/rsyncd-snapshot".to_vec(),
                ..ModuleFacts::default()
            };
            SetupConf::read(&self.path("rsyncd.conf"), b"laptop")?.plan(&sections(&facts))
        }

        /// Which texts are planned, for the root `/b`; or the error, with `@` for the directory.
        fn outcome(&self) -> std::result::Result<(bool, bool), String> {
            let planned =
                self.plan("/b").map_err(|it| it.to_string().replace(&self.base(), "@"))?;
            Ok((planned.file.is_some(), planned.including.is_some()))
        }
    }

    /// What is written for the root `/b`.
    fn section() -> String {
        let facts = ModuleFacts {
            name: b"laptop".to_vec(),
            root: b"/b".to_vec(),
            hook: b"/usr/bin/rsyncd-snapshot".to_vec(),
            ..ModuleFacts::default()
        };
        String::from_utf8(module_section::text_of(&sections(&facts))).expect("UTF-8")
    }

    #[test]
    fn only_what_is_missing_is_planned() {
        let (section, include) = (section(), "&include @/rsyncd.d\n");
        let file = |text: &str| ("rsyncd.d/laptop.conf", text.to_string());
        let conf = |text: &str| ("rsyncd.conf", text.to_string());
        for (case, files, expected) in [
            ("nothing", vec![], (true, true)),
            ("a conf", vec![conf("uid = root\n[other]\npath = /o")], (true, true)),
            ("a conf without a line break", vec![conf("[other]\npath = /o")], (true, true)),
            ("an include of no directory", vec![conf(include)], (true, false)),
            ("an include", vec![conf(include), ("rsyncd.d/x.conf", String::new())], (true, false)),
            ("a file without include", vec![conf(""), file(&section)], (false, true)),
            ("all of it", vec![conf(include), file(&section)], (false, false)),
            ("pasted sections", vec![conf(&section)], (false, false)),
            (
                "a file about another",
                vec![conf(include), file("[other]\npath = /o\n")],
                (true, false),
            ),
        ] {
            let files: Vec<(&str, &str)> =
                files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            assert_eq!(Files::new(&files).outcome(), Ok(expected), "{case}");
        }
    }

    #[test]
    fn the_planned_text_is_read_as_it_was_meant() {
        let files = Files::new(&[("rsyncd.conf", "list = yes\n[other]\npath = /o\n")]);
        let planned = files.plan("/my backups/laptop").expect("planned");
        let path = |name: &[u8]| planned.conf.module(name).expect("there").path().expect("a path");
        assert_eq!(path(b"laptop"), Path::new("/my backups/laptop/latest"));
        assert_eq!(path(b"other"), Path::new("/o"));
        let names: Vec<_> = planned.conf.modules.iter().map(|module| &module.name).collect();
        assert_eq!(names, [&b"other"[..], b"laptop"]);
    }

    #[test]
    fn a_module_of_that_name_with_other_parameters_is_refused() {
        for (files, expected) in [
            (
                vec![("rsyncd.conf", "[laptop]\npath = /o\n")],
                "@/rsyncd.conf:2: the module laptop is there already and has `path = /o`",
            ),
            (
                vec![("rsyncd.conf", "[laptop]\npath = /b/latest\n")],
                "@/rsyncd.conf:1: the module laptop is there already and has no `read only`",
            ),
            (
                vec![("rsyncd.conf", ""), ("rsyncd.d/laptop.conf", "\n[laptop]\npath = /o\n")],
                "@/rsyncd.d/laptop.conf:3: the module laptop",
            ),
            (
                vec![("rsyncd.conf", ""), ("rsyncd.d/old.conf", "[old]\npath = /o\n")],
                "@/rsyncd.d/old.conf:1: with `&include @/rsyncd.d` in @/rsyncd.conf, module old \
                 would be served, too",
            ),
            // Whatever follows, this backslash would join the next line to the value.
            (
                vec![("rsyncd.conf", "[other]\npath = /o\\")],
                "@/rsyncd.conf:1: with `&include @/rsyncd.d` in @/rsyncd.conf, module other would \
                 change",
            ),
            (vec![("rsyncd.conf", "&include /not/there\n")], "No such file"),
        ] {
            let error = Files::new(&files).outcome().expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_path_that_rsync_would_read_otherwise_is_refused() {
        let files = Files::new(&[("rsyncd.conf", "")]);
        for root in
            ["/b/a\\\n", "/b\n[x]\npath = /b", "/b\r/c", "/b/%HOME%", "/b/%RSYNC_MODULE_NAME%"]
        {
            assert!(files.plan(root).is_err(), "{root}");
        }
    }

    #[test]
    fn defaults_are_those_that_a_module_gets() {
        for (conf, expected) in [
            ("", None),
            ("secrets file = /x\n", Some("/x")),
            ("[other]\npath = /o\nsecrets file = /x\n", None),
            ("[laptop]\npath = /o\nsecrets file = /x\n", Some("/x")),
        ] {
            let files = Files::new(&[("rsyncd.conf", conf)]);
            let read = SetupConf::read(&files.path("rsyncd.conf"), b"laptop").expect("read");
            let value = read.value(b"laptop", "secrets file");
            assert_eq!(value, expected.map(str::as_bytes), "{conf}");
        }
    }
}
