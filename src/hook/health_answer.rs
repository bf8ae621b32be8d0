//! Answers a client that asks for the health of its module: `rsync-system-backup --check`.
//!
//! The only text of the hook that rsyncd sends to a client is what a failing pre-xfer prints. So
//! the client asks for a listing of the module's root by a path that no other client uses, and
//! pre-xfer turns it away with the answer. A server without pre-xfer sends the listing instead. (On
//! such a server, a path that does not exist would fail, and post-xfer would see a failed
//! transfer.)
//!
//! The answer holds the health of the client's own module and the free bytes. Only `rsyncd-snapshot
//! check`, on the server, shows paths, names and other clients.

use crate::command::check_module::check_without_conf;
use crate::command::finding::Severity;
use crate::hook::transfer_request::TransferRequest;
use crate::module::target::Target;

/// The path that the client asks for, after the module's name and a slash.
pub(crate) const PATH: &str = "./././././";

/// The beginning of the answer.
pub(crate) const ANSWER: &str = "rsyncd-snapshot says";

/// Whether a transfer asks for the health of the module.
pub(crate) fn is_asked(request: &TransferRequest) -> bool {
    let path = request.path.split_once('/').map(|(_, path)| path);
    !request.arguments.kind.writes() && path == Some(PATH)
}

/// The answer, in one line.
pub(crate) fn answer(target: &Target) -> String {
    let level = check_without_conf(target).iter().map(|finding| finding.level).max();
    let word = level.unwrap_or(Severity::Unknown).word();
    let free = rustix::fs::statvfs(&target.module_path)
        .map(|facts| facts.f_bavail.saturating_mul(facts.f_frsize).to_string());
    format!("{ANSWER}: {word}, {} bytes free", free.unwrap_or_else(|_| "unknown".to_string()))
}

/// Reads an answer: the word for the health, and the free bytes.
pub(crate) fn read_answer(text: &str) -> Option<(String, Option<u64>)> {
    let answer = text.split_once(ANSWER)?.1.strip_prefix(": ")?;
    let (word, rest) = answer.split_once(", ")?;
    Some((word.to_string(), rest.split_once(" bytes free")?.0.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_in_rsyncs_error_message() {
        let text = format!(
            "@ERROR: pre-xfer exec returned failure; {ANSWER}: WARNING, 4096 bytes free; \
             rsync error"
        );
        assert_eq!(read_answer(&text), Some(("WARNING".to_string(), Some(4096))));
        assert_eq!(
            read_answer(&format!("{ANSWER}: OK, unknown bytes free")),
            Some(("OK".to_string(), None))
        );
        for text in ["", "rsync: no such file", ANSWER, &format!("{ANSWER}: OK")] {
            assert_eq!(read_answer(text), None, "{text}");
        }
    }
}
