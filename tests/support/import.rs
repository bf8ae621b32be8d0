//! Runs `import-policy` on a file, and reads its output as TOML and comments.

use std::fs;

use toml::{Table, Value};

use super::module::Module;
use super::run::Run;
use super::server::Server;

/// Imports `ini`, in which `ROOT` stands for the module's snapshot root.
pub(crate) fn import(module: &Module, ini: &str) -> Run {
    import_bytes(&module.server, ini.replace("ROOT", &module.root.display().to_string()).as_bytes())
}

pub(crate) fn import_bytes(server: &Server, ini: &[u8]) -> Run {
    let file = server.directory.join("rotate-backups.ini");
    fs::write(&file, ini).expect("the ini file");
    Run::of(server.command(&["import-policy"]).arg(file))
}

/// The document that was printed, which must be TOML.
#[track_caller]
pub(crate) fn document(run: &Run) -> Table {
    run.stdout().parse().unwrap_or_else(|error| panic!("no TOML: {error}: {run}"))
}

/// The names of the tables of modules.
#[track_caller]
pub(crate) fn modules(run: &Run) -> Vec<String> {
    let modules =
        document(run).get("module").and_then(Value::as_table).cloned().unwrap_or_default();
    modules.keys().cloned().collect()
}

/// A key of a module's table; an empty text if it is not there.
#[track_caller]
pub(crate) fn value(run: &Run, module: &str, key: &str) -> String {
    let document = document(run);
    let table = document.get("module").and_then(|modules| modules.get(module));
    let table = table.unwrap_or_else(|| panic!("no [module.{module}]: {run}"));
    table.get(key).map(ToString::to_string).unwrap_or_default()
}

/// Comments as one text, as their lines break anywhere.
pub(crate) fn comments(run: &Run) -> String {
    let lines: Vec<String> =
        run.stdout().lines().map(|line| line.trim_start_matches("# ").into()).collect();
    lines.join(" ")
}
