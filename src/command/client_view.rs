//! The clients of a module in the JSON of `check`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::command::root_findings::push_history;
use crate::decide::push_history::{ClientPushes, PushHistory};
use crate::decide::rsync_status::RsyncStatus;
use crate::module::target::Target;
use crate::store::state::State;

/// What is known of the pushes of one client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientView {
    user: String,
    name: String,
    address: String,
    last_good_push: Option<DateTime<Utc>>,
    last_failed_push: Option<FailedPushView>,
    last_snapshot: Option<String>,
    usual_seconds: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailedPushView {
    time: DateTime<Utc>,
    status: i32,
    meaning: Option<String>,
    free_bytes: Option<u64>,
}

/// The clients of a module; none if it has no root or that cannot be read, which the findings say.
pub(crate) fn of_module(target: &Target) -> Vec<ClientView> {
    let root = target.look_at_root().ok().filter(|root| root.is_registered());
    let state = root.and_then(|root| State::read(root.private()).ok()).unwrap_or_default();
    of_history(&push_history(target, &state))
}

/// The clients whose pushes are remembered.
pub(crate) fn of_history(history: &PushHistory) -> Vec<ClientView> {
    history.clients.iter().map(|client| view(history, client)).collect()
}

fn view(history: &PushHistory, client: &ClientPushes) -> ClientView {
    let who = client.who.clone();
    ClientView {
        last_good_push: client.good,
        last_failed_push: client.failed.as_ref().map(|end| FailedPushView {
            time: end.time,
            status: end.status,
            meaning: RsyncStatus(end.status).meaning().map(str::to_string),
            free_bytes: end.free_bytes,
        }),
        last_snapshot: client.snapshot.clone(),
        usual_seconds: history.usual_seconds(&who),
        user: who.user,
        name: who.name,
        address: who.address,
    }
}
