//! The answer to a client that asks how its module is: `rsync-system-backup --check`.
//!
//! rsyncd tells a client nothing of hook and disk, but it sends what a failing pre-xfer prints. So
//! the client asks for a listing by a path that means the module's root and that nobody writes by
//! chance, and is turned away with the answer. Where no pre-xfer is, it gets the listing: a name
//! that does not exist would end in an error there, and the other hook would take it for a failed
//! transfer. The client learns how healthy its own module is and how much room there is, and
//! nothing of paths, names or other clients: that is for `rsyncd-snapshot check`.

use crate::command::check;
use crate::command::finding::Severity;
use crate::hook::transfer_request::TransferRequest;
use crate::module::target::Target;

/// What the client asks for, after the module's name and a slash.
pub(crate) const PATH: &str = "./././././";

/// How the answer begins.
pub(crate) const ANSWER: &str = "rsyncd-snapshot says";

/// Whether a transfer is such a question.
pub(crate) fn is_asked(request: &TransferRequest) -> bool {
    let path = request.path.split_once('/').map(|(_, path)| path);
    !request.arguments.kind.writes() && path == Some(PATH)
}

/// The answer, in one line.
pub(crate) fn answer(target: &Target) -> String {
    let level = check::check_module(target, None).iter().map(|finding| finding.level).max();
    let word = level.unwrap_or(Severity::Unknown).word();
    let free = rustix::fs::statvfs(&target.module_path)
        .map(|facts| facts.f_bavail.saturating_mul(facts.f_frsize).to_string());
    format!("{ANSWER}: {word}, {} bytes free", free.unwrap_or_else(|_| "unknown".to_string()))
}

/// What an answer says: the word for the health, and the bytes that are free.
pub(crate) fn read_answer(text: &str) -> Option<(String, Option<u64>)> {
    let answer = text.split_once(ANSWER)?.1.strip_prefix(": ")?;
    let (word, rest) = answer.split_once(", ")?;
    Some((word.to_string(), rest.split_once(" bytes free")?.0.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_out_of_what_rsync_makes_of_it() {
        let text = format!(
            "@ERROR: pre-xfer exec returned failure; {ANSWER}: WARNING, 4096 bytes free; rsync error"
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
