//! Joins the events of a client with the notes of the hooks of its connections.

use super::event::{Event, Moment, TICK_MILLISECONDS};
use super::note::Note;
use super::site::Site;

/// After the end of a client, its transfer may continue at the server for about this time.
const AFTERLIFE_MILLISECONDS: u64 = 3_000;

/// One client's connection.
pub(crate) struct Connection {
    pub(crate) event: Event,
    pub(crate) pre: Option<Note>,
    pub(crate) post: Option<Note>,
}

/// Joins events and notes by address and time: a client has one connection at a time.
pub(crate) fn join(site: &Site, events: &[Event], notes: &[Note]) -> Vec<Connection> {
    events.iter().map(|event| connection(site, event, notes)).collect()
}

fn connection(site: &Site, event: &Event, notes: &[Note]) -> Connection {
    let address = site.address(event.client);
    let began = event.began.minus(TICK_MILLISECONDS);
    let is_within = |moment: Moment| began <= moment && moment <= event.ended;
    let of_client = || notes.iter().filter(|note| note.address == address);
    let pre = of_client().find(|note| note.is_pre && is_within(note.began)).cloned();
    let post = pre.as_ref().and_then(|pre| {
        of_client()
            .find(|note| !note.is_pre && note.pid == pre.pid && note.began >= pre.began)
            .cloned()
    });
    Connection { event: event.clone(), pre, post }
}

impl Connection {
    /// From when until when it may have written into its module, its hook included.
    fn span(&self) -> (Moment, Moment) {
        let event = &self.event;
        let end =
            self.post.as_ref().map_or(event.ended.plus(AFTERLIFE_MILLISECONDS), |post| post.ended);
        (event.began, end.max(event.ended).plus(TICK_MILLISECONDS))
    }

    /// Whether both may have written at the same time.
    pub(crate) fn overlaps(&self, other: &Connection) -> bool {
        let ((began, ended), (other_began, other_ended)) = (self.span(), other.span());
        began <= other_ended && other_began <= ended
    }

    /// Whether client, transfer and hook all did what they should.
    pub(crate) fn is_good(&self) -> bool {
        let hook_did = |post: &Note| post.transfer == Some(0) && [0, 4].contains(&post.exit);
        self.event.succeeded() && self.post.as_ref().is_some_and(hook_did)
    }

    /// For messages.
    pub(crate) fn tell(&self, site: &Site) -> String {
        let Event { client, module, action, options, sequence, began, ended, ending, complaint } =
            &self.event;
        let pid = self.pre.as_ref().map_or(0, |note| note.pid);
        let hook = |note: &Option<Note>| match note {
            None => "none".to_string(),
            Some(note) => format!(
                "{}-{} ms, transfer {:?}, exit {}",
                note.began.milliseconds, note.ended.milliseconds, note.transfer, note.exit
            ),
        };
        format!(
            "{action:?} {options:?} of state {sequence} by {} into {} at {}-{} ms, process {pid}: {ending:?}; \
             pre-xfer {}; post-xfer {}; {complaint}",
            site.client_name(*client),
            site.modules[*module].name,
            began.milliseconds,
            ended.milliseconds,
            hook(&self.pre),
            hook(&self.post)
        )
    }
}
