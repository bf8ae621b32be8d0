//! Every key of the policy file, with the kind of value that it accepts.

use crate::config::policy_value::{PolicyValue, ValueResult};
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::partial_dirs::PartialDirs;
use crate::decide::policy::{IoNice, MethodChoice, Policy, Prefer};

/// Reads one key's value into a policy.
pub(crate) type SetKey = fn(&mut Policy, &PolicyValue) -> ValueResult<()>;

pub(crate) const KEYS: [(&str, SetKey); 31] = [
    ("keep", |policy, value| value.keep().map(|keep| policy.keep = keep)),
    ("strict", |policy, value| value.boolean().map(|strict| policy.strict = strict)),
    ("prefer", |policy, value| value.one_of(&PREFER).map(|prefer| policy.prefer = prefer)),
    ("min_keep", |policy, value| value.snapshots().map(|count| policy.min_keep = count)),
    ("min_age", |policy, value| value.span().map(|span| policy.min_age = span)),
    ("max_expire", |policy, value| value.snapshots().map(|count| policy.max_expire = count)),
    ("keep_partial", |policy, value| value.snapshots().map(|count| policy.keep_partial = count)),
    ("time_zone", |policy, value| value.zone().map(|zone| policy.time_zone = zone)),
    ("clock_jump", |policy, value| value.positive_span().map(|span| policy.clock_jump = span)),
    (SNAPSHOT_ON_EXIT, |policy, value| {
        value.statuses().map(|statuses| policy.snapshot_on_exit = statuses)
    }),
    (PARTIAL_ON_EXIT, |policy, value| {
        value.statuses().map(|statuses| policy.partial_on_exit = statuses)
    }),
    (SNAPSHOT_ROOT, |policy, value| value.root().map(|root| policy.snapshot_root = Some(root))),
    (METHOD, |policy, value| value.one_of(&METHODS).map(|method| policy.method = method)),
    ("lock_wait", |policy, value| value.span().map(|span| policy.lock_wait = span)),
    ("min_interval", |policy, value| value.span().map(|span| policy.min_interval = span)),
    ("max_defer", |policy, value| value.span().map(|span| policy.max_defer = span)),
    ("push_wait", |policy, value| value.span().map(|span| policy.push_wait = span)),
    ("allow_options", |policy, value| {
        value
            .some_of(&RewritingOption::ALL.map(|option| (option.name(), option)))
            .map(|some| policy.allow_options = some)
    }),
    ("partial_dirs", |policy, value| {
        value.partial_dirs().map(|names| policy.partial_dirs = PartialDirs::listed(&names))
    }),
    ("max_parallel", |policy, value| {
        value.integer(1..=1_000).map(|jobs| policy.max_parallel = Some(jobs as usize))
    }),
    ("full_comparison", |policy, value| value.span().map(|span| policy.full_comparison = span)),
    ("grace", |policy, value| value.span().map(|span| policy.grace = Some(span))),
    ("max_lease", |policy, value| value.span().map(|span| policy.max_lease = span)),
    ("free_space", |policy, value| value.free_space().map(|space| policy.free_space = Some(space))),
    ("anomaly_share", |policy, value| value.percent().map(|share| policy.anomaly_share = share)),
    ("open_root", |policy, value| value.boolean().map(|is_open| policy.open_root = is_open)),
    ("content_hashes", |policy, value| {
        value.boolean().map(|hashes| policy.content_hashes = hashes)
    }),
    (MAX_AGE, |policy, value| value.positive_span().map(|span| policy.max_age = Some(span))),
    ("log_level", |policy, value| value.one_of(&LOG_LEVEL).map(|level| policy.log_level = level)),
    ("nice", |policy, value| value.integer(0..=19).map(|nice| policy.nice = nice as i32)),
    ("ionice", |policy, value| value.one_of(&IONICE).map(|class| policy.ionice = class)),
];

pub(crate) const MAX_AGE: &str = "max_age";

/// The table in a module's table that holds one table for each client.
pub(crate) const CLIENT: &str = "client";

pub(crate) const SNAPSHOT_ON_EXIT: &str = "snapshot_on_exit";

pub(crate) const PARTIAL_ON_EXIT: &str = "partial_on_exit";

pub(crate) const SNAPSHOT_ROOT: &str = "snapshot_root";

pub(crate) const METHOD: &str = "method";

pub(crate) const METHODS: [(&str, MethodChoice); 4] = [
    ("auto", MethodChoice::Auto),
    ("hardlink", MethodChoice::HardLink),
    ("btrfs", MethodChoice::Btrfs),
    ("cephfs", MethodChoice::CephFs),
];

pub(crate) const PREFER: [(&str, Prefer); 2] =
    [("oldest", Prefer::Oldest), ("newest", Prefer::Newest)];

pub(crate) const LOG_LEVEL: [(&str, log::LevelFilter); 6] = [
    ("off", log::LevelFilter::Off),
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

pub(crate) const IONICE: [(&str, IoNice); 3] =
    [("none", IoNice::None), ("idle", IoNice::Idle), ("best-effort", IoNice::BestEffort)];
