//! A transfer that ended badly never becomes a complete snapshot, and never displaces one.

use crate::support;

use support::module::Module;
use support::tree;

#[test]
fn a_listing_after_a_failed_transfer_publishes_nothing() {
    let (module, first) = Module::with_snapshot();
    for status in [1, 4, 10, 12, 20, 23, 30, -1] {
        tree::write(&module.latest.join("half"), &status.to_string());
        module.run_hook_after(status).exits(&[0]);
        assert!(module.is_marked("torn"), "status {status}: {:?}", module.state());
        // Listings, pulls and manual rotations in between.
        module.run_hook().exits(&[0]);
        module.run(&["rotate", "data"]).exits(&[0]);
        module.run_hook().exits(&[0]);
        assert_eq!(module.snapshots(), [first.as_str()], "status {status}");
        assert!(module.is_marked("torn"), "status {status}: {:?}", module.state());
    }
    tree::write(&module.latest.join("half"), "whole");
    let second = module.expect_snapshot();
    module.assert_equals_module(&second);
    assert!(!second.ends_with("-partial"), "{second}");
    assert!(!module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn vanished_files_are_a_good_transfer() {
    let (module, _) = Module::with_snapshot();
    tree::write(&module.latest.join("new"), "x");
    module.run_hook_after(24).exits(&[0]);
    assert_eq!(module.snapshots().len(), 2);
    assert!(!module.is_marked("torn"));
    assert_eq!(module.list()[1]["status"], 24);
}

#[test]
fn the_policy_says_which_statuses_earn_which_grade() {
    let (module, first) = Module::with_snapshot();
    module.write_policy("[defaults]\nsnapshot_on_exit = [0, 23]\npartial_on_exit = [12]\n");
    tree::write(&module.latest.join("new"), "23");
    module.run_hook_after(23).exits(&[0]);
    let complete = module.snapshots().pop().expect("a snapshot");
    assert!(!complete.ends_with("-partial") && complete != first, "{complete}");

    tree::write(&module.latest.join("new"), "12");
    module.run_hook_after(12).exits(&[0]);
    let partial = module.snapshots().pop().expect("a snapshot");
    assert!(partial.ends_with("-partial"), "{partial}");
    module.assert_equals_module(&partial);
    let listed = module.list();
    assert_eq!(listed[2]["grade"], "partial");
    let because = listed[2]["because"].as_str().expect("a reason");
    assert!(because.starts_with("the transfer ended with status 12: the connection"), "{because}");
    assert!(listed[1]["because"].is_null() && listed[2]["undated"].is_null(), "{listed:?}");
    let told = format!("{partial}: the transfer ended with status 12");
    module.run(&["list", "data"]).exits(&[0]).says(&told);
    assert!(module.is_marked("torn"));
    // Nothing more to show for the same failure, nor for a listing.
    module.run_hook_after(12).exits(&[0]);
    module.run_hook().exits(&[0]);
    assert_eq!(module.snapshots().len(), 3);

    tree::write(&module.latest.join("new"), "0");
    let good = module.expect_snapshot();
    assert!(!good.ends_with("-partial"), "{good}");
    assert!(!module.is_marked("torn"));
}

#[test]
fn a_manual_snapshot_of_a_torn_module_is_partial() {
    let (module, _) = Module::with_snapshot();
    tree::write(&module.latest.join("half"), "x");
    module.run_hook_after(12).exits(&[0]);
    let made = module.json(&["snapshot", "data", "--json"]);
    assert_eq!(made["outcome"], "published", "{made}");
    assert!(made["name"].as_str().is_some_and(|name| name.ends_with("-partial")), "{made}");
    tree::write(&module.latest.join("half"), "more");
    let made = module.json(&["snapshot", "data", "--json"]);
    assert!(made["name"].as_str().is_some_and(|name| name.ends_with("-partial")), "{made}");
    assert!(module.is_marked("torn"));
    module.run(&["check", "data"]).exits(&[1, 2]);
}

#[test]
fn a_first_transfer_that_fails_leaves_a_torn_root_without_snapshots() {
    let module = Module::new();
    tree::small(&module.latest);
    module.run_hook_after(12).exits(&[0]);
    module.run_hook().exits(&[0]);
    assert!(module.snapshots().is_empty(), "{:?}", module.snapshots());
    tree::write(&module.latest.join("rest"), "x");
    module.expect_snapshot();
}

#[test]
fn six_failures_and_listings_never_expire_the_last_good_state() {
    slow!();
    let (module, good) = Module::with_snapshot();
    module.write_policy(
        "[defaults]\nkeep = { minutely = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nkeep_partial = 1\npartial_on_exit = [12]\n",
    );
    for number in 0..6 {
        tree::write(&module.latest.join("half"), &number.to_string());
        module.run_hook_after(12).exits(&[0]);
        module.run(&["rotate", "data"]).exits(&[0]);
    }
    let names = module.snapshots();
    // The newest partial one, and the one that stands for the minute among those since the last
    // good state.
    assert!((2..=3).contains(&names.len()), "{names:?}");
    assert_eq!(names[0], good);
    assert!(names[1..].iter().all(|name| name.ends_with("-partial")), "{names:?}");
}
