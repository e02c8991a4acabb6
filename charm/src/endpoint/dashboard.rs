//! `grafana-dashboard`, interface grafana_dashboard (provider): the dashboard that Grafana shows.
//!
//! The charm library `grafana_dashboard` says what the databag holds.

use super::bag;
use super::topology::{CHARM, Topology};
use crate::facts::Bag;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::io::Write as _;
use windrow_core::values::digest::sha256_hex;

/// The dashboard. It uses the variables `juju_*` and `prometheusds` without declaring them:
/// Grafana's charm adds its own declarations, and with an older one the variables would be there
/// twice. Its `uid` is made as `DashboardPath40UID` of cosl makes it, of the charm's name and the
/// file's: 20 bytes of shake_256 of `windrow-k8s-dashboard.json`, in hexadecimal.
const DASHBOARD: &str = include_str!("../../dashboard.json");

/// The library's identifier for a dashboard without a `uid`: 8 bytes of shake_256 of
/// `windrow-k8s-file:windrow`, in hexadecimal.
const DASHBOARD_ALT_UID: &str = "7376b7487a8ac009";

/// The memory for compression. It is more than the dashboard is long; the preset's own value is
/// meant for files of megabytes.
const DICTIONARY_BYTES: u32 = 1 << 16;

/// The application's databag.
#[must_use]
pub fn app_data(topology: &Topology) -> Bag {
    let mut origin = topology.as_dict();
    origin.as_object_mut().expect("a map").remove("charm_name");
    let dashboards = json!({
        "templates": {
            "file:windrow": {
                "charm": CHARM,
                "content": BASE64_STANDARD.encode(xz(DASHBOARD)),
                "juju_topology": origin,
                "inject_dropdowns": true,
                "dashboard_alt_uid": DASHBOARD_ALT_UID,
            },
        },
        // The library writes a random number here, so that each write counts as a change. We write
        // only what has changed.
        "uuid": &sha256_hex(DASHBOARD.as_bytes())[..32],
    });
    bag([("dashboards", dashboards.to_string())])
}

fn xz(text: &str) -> Vec<u8> {
    // A fast preset: it makes 2468 bytes in 0.3 ms, where the usual preset 6 makes 2368 in 3 ms.
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = DICTIONARY_BYTES;
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are in range");
    xz.write_all(text.as_bytes())
        .expect("writing to a vector cannot fail");
    xz.finish().expect("writing to a vector cannot fail")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{metrics_in, our_metrics, parsed};
    use super::super::topology::example;
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::io::Read as _;

    #[test]
    fn dashboard_comes_back_from_base64_and_xz() {
        let bag = app_data(&example());
        assert_eq!(bag, app_data(&example()), "the same bytes each time");
        let all = parsed(&bag, "dashboards");
        let one = &all["templates"]["file:windrow"];
        assert_eq!(one["charm"], "windrow-k8s");
        assert_eq!(one["inject_dropdowns"], true);
        assert_eq!(one["juju_topology"].as_object().unwrap().len(), 4);
        assert!(one["dashboard_alt_uid"].is_string() && all["uuid"].is_string());
        let xz = BASE64_STANDARD
            .decode(one["content"].as_str().unwrap())
            .unwrap();
        let mut text = String::new();
        lzma_rust2::XzReader::new(xz.as_slice(), false)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, DASHBOARD);
        let bytes = bag["dashboards"].len();
        assert!(bytes < 16 << 10, "{bytes}");
    }

    #[test]
    fn each_panel_asks_for_our_metrics_of_the_chosen_units() {
        let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
        assert_eq!(dashboard["uid"].as_str().unwrap().len(), 40);
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() >= 10);
        let ours = our_metrics();
        let mut places = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()));
            assert_eq!(panel["datasource"]["uid"], "${prometheusds}");
            let place = &panel["gridPos"];
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
            assert!(x + w <= 24);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(cell), "{}", panel["title"]);
            }
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                let asked = metrics_in(expr);
                assert!(!asked.is_empty() && asked.is_subset(&ours), "{expr}");
                for label in [
                    "juju_model",
                    "juju_model_uuid",
                    "juju_application",
                    "juju_unit",
                ] {
                    assert!(expr.contains(&format!("{label}=~\"${label}\"")), "{expr}");
                }
            }
        }
    }
}
