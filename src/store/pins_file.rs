//! `pins.toml`: a copy of the pins, for the case that the state is lost.

use serde::{Deserialize, Serialize};

use crate::store::dir::{self, Dir};
use crate::store::format::{self};
use crate::store::layout::PINS_FILE;
use crate::store::pin::Pins;
use crate::tell::error::{Error, Result};

/// What `pins.toml` holds.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct PinCopy {
    /// Format number; 0 for files of versions that wrote none.
    #[serde(default)]
    pub(crate) format: u32,
    #[serde(default)]
    pub(crate) pins: Pins,
}

impl PinCopy {
    /// The pins as far as they can be read; expiry is paused until the administrator confirms.
    ///
    /// # Errors
    /// [`Error::Newer`] if a newer version wrote them: they are not to be written over.
    pub(crate) fn read(private: Dir) -> Result<Pins> {
        let text = dir::read(private, PINS_FILE).ok().flatten().unwrap_or_default();
        match format::read::<PinCopy>(&private.path.join(PINS_FILE), &text) {
            Ok(copy) => Ok(copy.pins),
            Err(error @ Error::Newer { .. }) => Err(error),
            Err(_) => Ok(Pins::default()),
        }
    }
}
