//! The variables `RSYNC_*` that rsyncd gives its hooks, read as bytes.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::decide::arguments::Arguments;
use crate::decide::client::Client;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// A connection to a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookConnection {
    /// `RSYNC_MODULE_NAME`.
    pub module_name: Option<Vec<u8>>,
    /// `RSYNC_MODULE_PATH`, absolute.
    pub module_path: PathBuf,
    /// `RSYNC_HOST_ADDR`, `RSYNC_HOST_NAME` and `RSYNC_USER_NAME`.
    pub client: Client,
    /// `RSYNC_PID`: the process that serves the connection.
    pub pid: Option<u32>,
    /// `RSYNC_REQUEST`, escaped; only pre-xfer gets it.
    pub request: String,
}

/// A transfer that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTransfer {
    /// The connection that it came over.
    pub connection: HookConnection,
    /// `RSYNC_EXIT_STATUS`: 0 to 255, or -1 for a transfer that a signal killed.
    pub status: i32,
    /// `RSYNC_RAW_STATUS`: the status that waitpid returned to rsyncd.
    pub raw_status: Option<i32>,
}

impl HookConnection {
    /// Whether the environment is that of a hook at all.
    pub fn is_in_environment() -> bool {
        env::var_os("RSYNC_MODULE_PATH").is_some()
    }

    /// The module's name or path for messages, escaped.
    pub fn label(&self) -> String {
        let path = || escape_path(&self.module_path);
        self.module_name.as_deref().map_or_else(path, escape)
    }

    /// Reads the environment of this process.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn from_environment() -> Result<Self> {
        HookConnection::read(&bytes)
    }

    /// Reads the environment that `bytes` gives the values of.
    ///
    /// # Errors
    /// [`Error::Environment`] for a missing, empty or relative module path, and for a process that
    /// is not a number.
    pub fn read(bytes: &impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self> {
        let module_path =
            bytes("RSYNC_MODULE_PATH").ok_or_else(|| wrong("RSYNC_MODULE_PATH", "is not set"))?;
        if module_path.is_empty() {
            return Err(wrong("RSYNC_MODULE_PATH", "is empty"));
        }
        if module_path[0] != b'/' {
            let problem = format!("is not an absolute path: '{}'", escape(&module_path));
            return Err(wrong("RSYNC_MODULE_PATH", &problem));
        }
        let text = |variable| bytes(variable).map(|value| escape(&value)).unwrap_or_default();
        Ok(HookConnection {
            module_name: bytes("RSYNC_MODULE_NAME").filter(|name| !name.is_empty()),
            module_path: Path::new(std::ffi::OsStr::from_bytes(&module_path)).to_path_buf(),
            client: Client {
                address: text("RSYNC_HOST_ADDR"),
                name: text("RSYNC_HOST_NAME"),
                user: text("RSYNC_USER_NAME"),
            },
            pid: number("RSYNC_PID", bytes)?.and_then(|pid| u32::try_from(pid).ok()),
            request: text("RSYNC_REQUEST"),
        })
    }
}

impl FinishedTransfer {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn from_environment() -> Result<Self> {
        FinishedTransfer::read(&bytes)
    }

    /// Reads the environment that `bytes` gives the values of.
    ///
    /// # Errors
    /// As for a [`HookConnection`], and for a status that is missing or no number.
    pub fn read(bytes: &impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self> {
        let connection = HookConnection::read(bytes)?;
        let status = number("RSYNC_EXIT_STATUS", bytes)?;
        let status = status.ok_or_else(|| wrong("RSYNC_EXIT_STATUS", "is not set"))?;
        Ok(FinishedTransfer { connection, status, raw_status: number("RSYNC_RAW_STATUS", bytes)? })
    }
}

/// The arguments of the transfer: `RSYNC_ARG0` and so on, up to the first that is not set; `None`
/// if there are none, as for every hook but pre-xfer.
pub(crate) fn transfer_arguments() -> Option<Arguments> {
    let arguments: Vec<_> =
        (0..).map_while(|number| bytes(&format!("RSYNC_ARG{number}"))).collect();
    (!arguments.is_empty()).then(|| Arguments::parse(&arguments))
}

fn bytes(variable: &str) -> Option<Vec<u8>> {
    env::var_os(variable).map(|value| value.as_bytes().to_vec())
}

fn number(variable: &'static str, bytes: &impl Fn(&str) -> Option<Vec<u8>>) -> Result<Option<i32>> {
    let Some(value) = bytes(variable) else { return Ok(None) };
    let parsed = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    parsed
        .map(Some)
        .ok_or_else(|| wrong(variable, &format!("is not a number: '{}'", escape(&value))))
}

fn wrong(variable: &'static str, problem: &str) -> Error {
    Error::Environment { variable, problem: problem.to_string() }
}
