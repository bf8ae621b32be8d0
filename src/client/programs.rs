//! Where programs are looked for.

/// Where programs are looked up, whatever the caller's `PATH`.
pub(crate) const DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
