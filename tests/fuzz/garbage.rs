//! The one binary of the fuzzer; `GARBAGE_TARGET` names which of the targets it is.

#![no_main]

mod target;

use std::sync::LazyLock;

static TARGET: LazyLock<target::Target> = LazyLock::new(|| {
    let name = std::env::var("GARBAGE_TARGET").unwrap_or_default();
    let found = target::TARGETS.iter().find(|(known, _)| *known == name);
    *found.unwrap_or_else(|| panic!("GARBAGE_TARGET is '{name}', which is no target"))
});

libfuzzer_sys::fuzz_target!(|garbage: &[u8]| (TARGET.1)(garbage));
