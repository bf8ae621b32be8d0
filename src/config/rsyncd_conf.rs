//! Reads `rsyncd.conf` far enough to know each module's parameters and directory.
//!
//! On the command line the administrator names a module, while rsyncd gives hooks its directory. A
//! snapshot of another directory than the one that clients write to is no backup. So sections,
//! defaults, `&include` and `&merge` mean here what they mean to rsync 3.5, and a path that depends
//! on a connection is refused.
//!
//! A module copies the defaults that stand above its first header. A string that is still unset
//! then follows the defaults as they are at the end of the file; the other types do not. rsync
//! ignores a value of yes or no that it does not understand, such as one with a comment behind it,
//! so what stood before stays.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::conf_files::ConfFiles;
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_module::{
    ConfPlace, IgnoredBecause, IgnoredSetting, ModuleDirectory, ModuleParameters, RsyncdModule,
    Setting, canonical, read_bool, variable,
};
use crate::config::rsyncd_parameters::{self, ParameterKind};
use crate::config::rsyncd_syntax::{Statement, Statements};
use crate::decide::root_overlap::ConfiguredModule;
use crate::tell::error::Error;
use crate::tell::escape::escape;

/// Files that include each other deeper than this are a loop.
const MAX_DEPTH: usize = 16;

/// The number of files is limited, too: a file that includes itself twice doubles at each level.
const MAX_FILES: usize = 4_096;

/// The bytes with which some editors begin a file. rsync takes them for text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The modules that an `rsyncd.conf` defines, in its order.
#[derive(Debug, Clone)]
pub struct RsyncdConf {
    /// The modules.
    pub modules: Vec<RsyncdModule>,
    /// What rsync reads otherwise than it was meant, apart from parameters.
    pub(crate) remarks: Vec<ConfRemark>,
}

/// What rsync reads otherwise than it was meant, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfRemark {
    pub(crate) place: ConfPlace,
    pub(crate) what: Misread,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misread {
    /// The file begins with a byte order mark, so rsync does not understand this first line.
    ByteOrderMark(Vec<u8>),
    /// rsync ignores this line.
    Line(Vec<u8>),
    /// No file of a directory is read, since their names end otherwise. One of them, and the end.
    OtherNames(PathBuf, &'static str),
}

impl RsyncdConf {
    /// Reads `file` and everything that it includes.
    pub fn read(file: &Path) -> Result<Self, Error> {
        RsyncdConf::read_from(&ConfFiles::default(), file)
    }

    /// [`read`](Self::read) with files that are planned.
    pub(crate) fn read_from(files: &ConfFiles, file: &Path) -> Result<Self, Error> {
        let mut reader = ConfReader::of(files);
        reader.read_file(file, 0)?;
        let remarks = std::mem::take(&mut reader.remarks);
        Ok(RsyncdConf { modules: reader.finish(), remarks })
    }

    /// The modules that clients may write to and whose directories it says.
    pub(crate) fn writable_modules(&self) -> Vec<ConfiguredModule> {
        let configured = |module: &RsyncdModule| match module.whereabouts() {
            Ok(ModuleDirectory::At(directory)) if !offers_only_reading(module) => {
                Some(ConfiguredModule {
                    name: escape(&module.name),
                    directory,
                    gets_snapshots: module.runs_this_program("post-xfer exec"),
                })
            }
            _ => None,
        };
        self.modules.iter().filter_map(configured).collect()
    }

    /// The module that a client reaches by this name, which rsync compares byte by byte.
    pub fn module(&self, name: &[u8]) -> Option<&RsyncdModule> {
        self.modules.iter().rev().find(|module| module.name == name)
    }
}

/// The modules and defaults that have been read so far.
struct ConfReader<'a> {
    conf_files: &'a ConfFiles,
    modules: Vec<RsyncdModule>,
    defaults: ModuleParameters,
    /// The module whose section this is; `None` where parameters are defaults.
    current: Option<usize>,
    files: usize,
    remarks: Vec<ConfRemark>,
}

impl<'a> ConfReader<'a> {
    fn of(conf_files: &'a ConfFiles) -> Self {
        ConfReader {
            conf_files,
            modules: Vec::new(),
            defaults: ModuleParameters::default(),
            current: None,
            files: 0,
            remarks: Vec::new(),
        }
    }

    fn read_file(&mut self, file: &Path, depth: usize) -> Result<(), Error> {
        self.files += 1;
        let text = self.conf_files.read(file, depth > 0)?;
        let file: Arc<Path> = Arc::from(file);
        // rsync stops at a NUL without an error.
        if let Some(at) = text.iter().position(|byte| *byte == 0) {
            let line = text[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            return Err(ConfPlace { file, line }
                .refused("a NUL byte, where rsync stops reading; take that byte out"));
        }
        let marked = text.strip_prefix(BYTE_ORDER_MARK);
        if let Some(line) = marked.and_then(|rest| rest.split(|byte| *byte == b'\n').next()) {
            let place = ConfPlace { file: Arc::clone(&file), line: 1 };
            let what = Misread::ByteOrderMark(line.trim_ascii().to_vec());
            self.remarks.push(ConfRemark { place, what });
        }
        let mut statements = Statements::new(&text);
        while let Some((line, statement)) = statements.next() {
            let place = ConfPlace { file: Arc::clone(&file), line };
            match statement.map_err(|problem| place.stops_rsync(problem))? {
                Statement::Section(name) => self.section(name, place)?,
                Statement::Parameter(name, value) => self.parameter(name, value, place),
                Statement::Ignored(_) if line == 1 && marked.is_some() => {}
                Statement::Ignored(text) => {
                    log::warn!(
                        "{place}: neither a comment, nor a [module], nor a parameter with its =; \
                         rsync ignores it"
                    );
                    self.remarks.push(ConfRemark { place, what: Misread::Line(text) });
                }
                Statement::Directive(name, value) => {
                    self.directive(&name, &value, &place, depth)?
                }
            }
        }
        Ok(())
    }

    fn section(&mut self, name: Vec<u8>, place: ConfPlace) -> Result<(), Error> {
        let wanted = canonical(&name);
        if wanted == b"global" {
            self.current = None;
            return Ok(());
        }
        if name.contains(&b'/') {
            return Err(place.stops_rsync(&format!(
                "module name {} has a slash in it, at which rsync stops, so every connection \
                 fails; take the slash out",
                escape(&name)
            )));
        }
        let known = self.modules.iter().rposition(|module| canonical(&module.name) == wanted);
        self.current = known.or(Some(self.modules.len()));
        if known.is_none() {
            let parameters = self.defaults.clone();
            self.modules.push(RsyncdModule { name, parameters, place });
        }
        Ok(())
    }

    fn parameter(&mut self, name: Vec<u8>, value: Vec<u8>, place: ConfPlace) {
        let key = canonical(&name);
        let kind = rsyncd_parameters::kind_of(&key);
        let module = self.current.and_then(|index| self.modules.get_mut(index));
        let is_own = module.is_some();
        let parameters = match module {
            Some(module) => {
                if key == b"name" {
                    module.name.clone_from(&value);
                }
                &mut module.parameters
            }
            None => &mut self.defaults,
        };
        let because = match kind {
            None => Some(IgnoredBecause::Unknown),
            Some(ParameterKind::Global) if is_own => Some(IgnoredBecause::Global),
            Some(kind) if !is_understood(kind, &value) => Some(IgnoredBecause::NoBoolean),
            Some(_) => None,
        };
        match because {
            None => parameters.ignored.retain(|ignored| canonical(&ignored.name) != key),
            Some(because) => {
                let (value, place) = (value.clone(), place.clone());
                parameters.ignored.push(IgnoredSetting { name, value, place, because });
            }
        }
        // A later version of rsync may know a parameter that 3.5 ignores.
        if matches!(because, None | Some(IgnoredBecause::Unknown)) {
            parameters.settings.insert(key, Setting { value, place, is_own });
        }
    }

    fn directive(
        &mut self,
        name: &[u8],
        value: &[u8],
        place: &ConfPlace,
        depth: usize,
    ) -> Result<(), Error> {
        let is_include = name.eq_ignore_ascii_case(b"include");
        if !is_include && !name.eq_ignore_ascii_case(b"merge") {
            return Err(place.stops_rsync(&format!(
                "unknown directive &{}, at which rsync stops, so every connection fails; rsync \
                 knows &include and &merge",
                escape(name)
            )));
        }
        if !value.starts_with(b"/") {
            return Err(place.refused(&format!(
                "&{} {} is not an absolute path, so it depends on where the daemon was started",
                escape(name),
                escape(value)
            )));
        }
        if depth >= MAX_DEPTH {
            return Err(place.refused(&format!(
                "&{} {} is nested more than {MAX_DEPTH} deep; is it a loop?",
                escape(name),
                escape(value)
            )));
        }
        if self.files >= MAX_FILES {
            return Err(place.refused(&format!(
                "&{} {} is one of more than {MAX_FILES} files; is it a loop?",
                escape(name),
                escape(value)
            )));
        }
        let target = PathBuf::from(OsString::from_vec(value.to_vec()));
        let suffix = if is_include { ".conf" } else { ".inc" };
        let named = format!("&{} {}", escape(name), escape(value));
        let (files, other) = match self.conf_files.of(&target, suffix) {
            Ok(found) => found,
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                return Err(place.stops_rsync(&format!(
                    "{named}: {cause}, at which rsync stops, so every connection fails; make it, \
                     or take the line out"
                )));
            }
            Err(cause) if cause.kind() == ErrorKind::Other => {
                return Err(place.stops_rsync(&format!(
                    "{named}: {cause}, at which rsync stops, so every connection fails; name one \
                     of these"
                )));
            }
            Err(cause) => return Err(place.refused(&format!("{named}: {cause}"))),
        };
        if let Some(other) = other.filter(|_| files.is_empty()) {
            let what = Misread::OtherNames(other, suffix);
            self.remarks.push(ConfRemark { place: place.clone(), what });
        }
        files.iter().try_for_each(|file| match is_include {
            true => self.include(file, depth + 1),
            false => self.read_file(file, depth + 1),
        })
    }

    /// Reads a file that keeps its changes of the defaults to itself. Parameters that follow the
    /// directive belong to no module.
    fn include(&mut self, file: &Path, depth: usize) -> Result<(), Error> {
        let defaults = self.defaults.clone();
        self.current = None;
        self.read_file(file, depth)?;
        self.defaults = defaults;
        self.current = None;
        Ok(())
    }

    fn finish(mut self) -> Vec<RsyncdModule> {
        for name in rsyncd_parameters::of_kind(ParameterKind::LateString) {
            let Some(setting) = self.defaults.settings.get(&name) else { continue };
            for module in &mut self.modules {
                module.parameters.settings.entry(name.clone()).or_insert_with(|| setting.clone());
            }
        }
        for name in rsyncd_parameters::of_kind(ParameterKind::Global) {
            for module in &mut self.modules {
                match self.defaults.settings.get(&name) {
                    Some(setting) => {
                        module.parameters.settings.insert(name.clone(), setting.clone())
                    }
                    None => module.parameters.settings.remove(&name),
                };
            }
        }
        self.modules
    }
}

/// Whether rsync takes the value over. What a variable stands for is not known here.
fn is_understood(kind: ParameterKind, value: &[u8]) -> bool {
    let has_variable = || (0..value.len()).any(|at| variable(&value[at..]).is_some());
    let is_unset = || matches!(canonical(value).as_slice(), b"unset" | b"-1");
    match kind {
        ParameterKind::Boolean => read_bool(value).is_some() || has_variable(),
        ParameterKind::BooleanOrUnset => read_bool(value).is_some() || is_unset() || has_variable(),
        _ => true,
    }
}

impl ConfPlace {
    /// What only this reader refuses, or what depends on the daemon.
    fn refused(&self, problem: &str) -> Error {
        Error::RsyncdConf {
            place: self.to_string(),
            problem: problem.to_string(),
            stops_rsync: false,
        }
    }

    /// What rsync refuses, too.
    fn stops_rsync(&self, problem: &str) -> Error {
        Error::RsyncdConf {
            place: self.to_string(),
            problem: problem.to_string(),
            stops_rsync: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory of configuration files; `@` in their text stands for the directory.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = Files(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = directory.0.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text.replace('@', directory.0.path().to_str().unwrap())).unwrap();
            }
            directory
        }

        fn read(&self) -> Result<RsyncdConf, Error> {
            RsyncdConf::read(&self.0.path().join("rsyncd.conf"))
        }

        /// The message of the error with `@` for the directory.
        fn error(&self) -> String {
            self.read().unwrap_err().to_string().replace(self.0.path().to_str().unwrap(), "@")
        }
    }

    fn read(text: &str) -> RsyncdConf {
        Files::new(&[("rsyncd.conf", text)]).read().unwrap()
    }

    fn error(text: &str) -> String {
        Files::new(&[("rsyncd.conf", text)]).error()
    }

    fn names(conf: &RsyncdConf) -> Vec<String> {
        conf.modules.iter().map(|module| escape(&module.name)).collect()
    }

    fn get<'a>(conf: &'a RsyncdConf, module: &str, parameter: &str) -> Option<&'a str> {
        let value = conf.module(module.as_bytes()).expect(module).get(parameter)?;
        Some(std::str::from_utf8(value).unwrap())
    }

    /// The path of module `m` that has this `path`.
    fn path(value: &str) -> Result<String, String> {
        let conf = read(&format!("[m]\npath = {value}\n"));
        let path = conf.module(b"m").unwrap().path();
        path.map(|path| path.to_str().unwrap().to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_modules_own_parameters_stand_over_the_defaults() {
        let conf = read("comment = all\nread only = no\n[a]\npath = /a\n[b]\nComment = b\n");
        assert_eq!(names(&conf), ["a", "b"]);
        assert_eq!(get(&conf, "a", "comment"), Some("all"));
        assert_eq!(get(&conf, "b", "comment"), Some("b"));
        assert_eq!(get(&conf, "b", "readonly"), Some("no"));
        assert_eq!(get(&conf, "b", "use chroot"), None);
        assert!(conf.module(b"c").is_none());
    }

    #[test]
    fn parameter_names_ignore_case_and_whitespace() {
        let conf = read("[a]\n Post-Xfer   EXEC = /hook arg\n");
        assert_eq!(get(&conf, "a", "post-xfer exec"), Some("/hook arg"));
        assert_eq!(get(&conf, "a", "POST-XFEREXEC"), Some("/hook arg"));
        assert_eq!(get(&conf, "a", "postxferexec"), None);
    }

    #[test]
    fn a_repeated_section_continues_the_first_but_lookup_is_exact() {
        let conf = read("[ two   words ]\npath = /a\n[TwoWords]\ncomment = c\n");
        assert_eq!(names(&conf), ["two words"]);
        assert_eq!(get(&conf, "two words", "comment"), Some("c"));
        assert!(conf.module(b"twowords").is_none());
    }

    #[test]
    fn a_module_can_name_itself() {
        let conf = read("[a]\nname = b\n[a]\ncomment = another\n");
        assert_eq!(names(&conf), ["b", "a"]);
        assert_eq!(get(&conf, "b", "comment"), None);
    }

    #[test]
    fn a_later_global_section_reaches_strings_that_are_unset_and_modules_that_follow() {
        let conf = read(
            "[a]\n[b]\ncomment =\n[Glo bal]\ncomment = late\nread only = no\nlog format = x\n[c]\n",
        );
        assert_eq!(get(&conf, "a", "comment"), Some("late"));
        assert_eq!(get(&conf, "b", "comment"), Some(""));
        assert_eq!(get(&conf, "a", "read only"), None);
        assert_eq!(get(&conf, "a", "log format"), None);
        assert_eq!(get(&conf, "c", "read only"), Some("no"));
        assert_eq!(get(&conf, "c", "log format"), Some("x"));
    }

    #[test]
    fn an_included_file_inherits_defaults_and_gives_none_back() {
        let conf = Files::new(&[
            ("rsyncd.conf", "read only = no\n[before]\n&include @/inc\nread only = 1\n[after]\n"),
            ("inc/b.conf", "[b]\n"),
            ("inc/a.conf", "list = no\nread only = yes\n[a]\n"),
            ("inc/.h.conf", "[hidden]\n"),
            ("inc/.conf", "[dot]\n"),
            ("inc/c.CONF", "nonsense"),
            ("inc/d.inc", "nonsense"),
            ("inc/e.conf/x", "a directory, which rsync reads as an empty file"),
        ])
        .read()
        .unwrap();
        assert_eq!(names(&conf), ["before", "dot", "hidden", "a", "b", "after"]);
        assert_eq!(get(&conf, "a", "read only"), Some("yes"));
        assert_eq!(get(&conf, "b", "read only"), Some("no"));
        assert_eq!(get(&conf, "b", "list"), None);
        // After an &include the file goes on with defaults, even inside a section.
        assert_eq!(get(&conf, "before", "read only"), Some("no"));
        assert_eq!(get(&conf, "after", "read only"), Some("1"));
    }

    #[test]
    fn a_merged_file_stands_in_place_of_its_directive() {
        let conf = Files::new(&[
            ("rsyncd.conf", "[a]\n&MERGE @/inc\nlist = no\n[b]\n&merge = @/one\n[c]\n"),
            ("inc/x.inc", "path = /x\n"),
            ("inc/y.inc", "comment = y\n"),
            ("inc/z.conf", "nonsense"),
            ("one", "comment = one\n[global]\nlist = yes\n"),
        ])
        .read()
        .unwrap();
        let of_a = ["path", "comment", "list"].map(|parameter| get(&conf, "a", parameter));
        assert_eq!(of_a, [Some("/x"), Some("y"), Some("no")]);
        assert_eq!(get(&conf, "b", "comment"), Some("one"));
        assert_eq!(get(&conf, "b", "list"), None);
        assert_eq!(get(&conf, "c", "list"), Some("yes"));
    }

    #[test]
    fn an_empty_directory_includes_nothing_and_leaves_the_section() {
        let files =
            Files::new(&[("rsyncd.conf", "[a]\n&include @/inc\npath = /a\n"), ("inc/x", "")]);
        assert_eq!(files.read().unwrap().module(b"a").unwrap().path().unwrap(), Path::new("/a"));
    }

    #[test]
    fn a_mistake_names_file_and_line() {
        let stops = ", at which rsync stops, so every connection fails; ";
        for (text, told, edit) in [
            ("# c\n[a]\n\n= words\n", "4: a parameter without a name", "write `NAME = VALUE`"),
            ("[a/b]", "1: module name a/b has a slash in it", "take the slash out"),
            ("a = b\n[]", "2: a module without a name", "write its name between"),
            ("&load /x\n", "1: unknown directive &load", "rsync knows &include and &merge"),
        ] {
            let error = Files::new(&[("rsyncd.conf", text)]);
            assert!(error.read().unwrap_err().stops_rsync(), "{text}");
            let begin = format!("@/rsyncd.conf:{told}{stops}{edit}");
            assert!(error.error().starts_with(&begin), "{}", error.error());
        }
        assert_eq!(
            error("a = b\n\0"),
            "@/rsyncd.conf:2: a NUL byte, where rsync stops reading; take that byte out"
        );
        assert!(
            error("\n&include inc")
                .starts_with("@/rsyncd.conf:2: &include inc is not an absolute path")
        );
        assert_eq!(
            error("&merge @/none"),
            "@/rsyncd.conf:1: &merge @/none: No such file or directory (os error 2), at which \
             rsync stops, so every connection fails; make it, or take the line out"
        );
        assert_eq!(
            error("&merge /dev/null"),
            "@/rsyncd.conf:1: &merge /dev/null: neither a file nor a directory, at which rsync \
             stops, so every connection fails; name one of these"
        );
        let nested = Files::new(&[("rsyncd.conf", "&merge @/x"), ("x", "\n\n= bad\x1b[m\n")]);
        assert!(nested.error().starts_with("@/x:3: a parameter without"));
    }

    #[test]
    fn what_rsync_reads_otherwise_than_meant_is_remarked() {
        let conf = Files::new(&[
            ("rsyncd.conf", "\u{feff}[a]\nread only no\n[b]\n&include @/inc\n&merge @/more\n"),
            ("inc/data", "[data]\n"),
            ("inc/.hidden", ""),
            ("inc/sub/x.conf", "[x]\n"),
            ("more/x.inc", "\u{feff}# a comment\n"),
            ("more/y", ""),
        ]);
        let read = conf.read().unwrap();
        assert_eq!(names(&read), ["b"]);
        let lines: Vec<usize> = read.remarks.iter().map(|remark| remark.place.line).collect();
        assert_eq!(lines, [1, 2, 4, 1]);
        let what: Vec<Misread> = read.remarks.into_iter().map(|remark| remark.what).collect();
        let expected = [
            Misread::ByteOrderMark(b"[a]".to_vec()),
            Misread::Line(b"read only no".to_vec()),
            Misread::OtherNames(conf.0.path().join("inc/.hidden"), ".conf"),
            Misread::ByteOrderMark(b"# a comment".to_vec()),
        ];
        assert_eq!(what, expected);
    }

    #[test]
    fn a_missing_file_is_a_configuration_error() {
        let error = Files::new(&[]).read().unwrap_err();
        assert_eq!(error.exit(), crate::tell::exit::Exit::Usage);
        assert!(error.to_string().contains("rsyncd.conf: No such file"));
    }

    #[test]
    fn files_that_double_at_each_level_end_with_an_error() {
        let name =
            |level: usize| if level == 0 { "rsyncd.conf".into() } else { format!("{level:02}") };
        let names: Vec<String> = (0..15).map(name).collect();
        let texts: Vec<String> =
            (1..15).map(|next| format!("&merge @/{}\n", name(next)).repeat(2)).collect();
        let texts = texts.iter().map(String::as_str).chain([""]);
        let files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts).collect();
        let message = Files::new(&files).error();
        assert!(message.contains("one of more than 4096 files"), "{message}");
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        let message = RsyncdConf::read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(message.contains("more than 16 MiB"), "{message}");
    }

    #[test]
    fn a_loop_of_includes_ends_with_an_error() {
        let looping =
            Files::new(&[("rsyncd.conf", "&include @/x"), ("x", "[a]\n&merge @/rsyncd.conf\n")]);
        let message = looping.error();
        assert!(message.contains("nested more than 16 deep"), "{message}");
        assert!(message.starts_with("@/rsyncd.conf:1: &include @/x"), "{message}");
    }

    #[test]
    fn a_path_is_what_rsyncd_gives_to_its_hooks() {
        for (value, expected) in [
            ("/srv/backup/laptop/latest", "/srv/backup/laptop/latest"),
            ("/srv//a/./../b c//", "/srv/b c"),
            ("/srv/./inner", "/srv/inner"),
            ("/", "/"),
            ("/../..", "/"),
            ("/100%", "/100%"),
            ("/a%%b", "/a%%b"),
            ("/a%lower%", "/a%lower%"),
            ("/a%RSYNC_MODULE_NAME%/%RSYNC_MODULE_NAME%", "/am/m"),
        ] {
            assert_eq!(path(value), Ok(expected.to_string()), "{value}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_known_is_refused() {
        let message = path("/home/%RSYNC_USER_NAME%").unwrap_err();
        assert!(
            message.contains(":1: module m has the path /home/%RSYNC_USER_NAME%, which depends on")
        );
        assert!(message.ends_with("name the directory instead of the module"));
        assert!(path("%RSYNC_MODULE_NAME%").unwrap_err().contains("relative"));
        assert!(path("%%HOME%%").unwrap_err().contains("%HOME%"));
        assert!(path("backup").unwrap_err().contains("the relative path backup"));
        assert!(
            path("").unwrap_err().ends_with("module m has no path; set `path = /DIRECTORY` in it")
        );
        let chroot = read("daemon chroot = /jail\n[m]\npath = /a\n");
        assert!(chroot.module(b"m").unwrap().path().unwrap_err().to_string().contains("/jail"));
    }

    #[test]
    fn garbage_does_not_panic() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let alphabet = b"[]=&\\ \n\r\t#;%/.aM\xff\0";
        let mut state: u64 = 1;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..4_000 {
            let text: Vec<u8> =
                (0..random() % 64).map(|_| alphabet[random() % alphabet.len()]).collect();
            fs::write(file.path(), &text).unwrap();
            match RsyncdConf::read(file.path()) {
                Ok(conf) => conf.modules.iter().for_each(|module| drop(module.path())),
                Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
            }
        }
    }
}
