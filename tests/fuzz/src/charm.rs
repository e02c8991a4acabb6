//! The parsers of the charm: databags, certificates, options, and what the workload says.

use crate::text;
use windrow_charm::endpoint::Topology;
use windrow_charm::endpoint::{certificates as ca, kafka, logging, metastore, s3};
use windrow_charm::facts::{Bag, OptionValues, Relation};
use windrow_charm::options as charm_options;
use windrow_charm::status::describe_windrow;
use windrow_core::settings::config::Config;
use windrow_core::shown::status::Status;

/// A databag, as a JSON object of texts. Each endpoint may get any of them.
pub fn databag(data: &[u8]) {
    let Ok(bag) = serde_json::from_slice::<Bag>(data) else {
        return;
    };
    let relation = Relation {
        id: "any:1".to_owned(),
        app: "other".to_owned(),
        units: [("other/0".to_owned(), bag.clone())].into(),
        data: bag,
        ..Relation::default()
    };
    let _ = kafka::read(Some(&relation), "test-topic");
    let _ = kafka::model_of_secret(&relation);
    let _ = s3::read(Some(&relation), "spark");
    let _ = metastore::read(Some(&relation), "hivemetastore");
    let _ = ca::read(std::slice::from_ref(&relation));
    let topology = Topology::new("spark", "uuid", "windrow/0");
    let _ = logging::log_targets(std::slice::from_ref(&relation), &topology, []);
}

/// A chain of certificates. What is taken is taken again as it was written.
pub fn certificates(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(pem) = ca::pem(text) {
        assert_eq!(ca::pem(&pem), Ok(pem.clone()), "it is read as written");
    }
}

/// The charm's options, as a JSON object. What the charm takes, windrow must take.
pub fn options(data: &[u8]) {
    let Ok(values) = serde_json::from_slice::<OptionValues>(data) else {
        return;
    };
    let _ = charm_options::read(&values).map_err(|problems| assert!(!problems.is_empty()));
    if let Some(text) = text(data) {
        let _ = Config::parse(text);
    }
}

/// What the workload says of itself.
pub fn status(data: &[u8]) {
    let Ok(status) = serde_json::from_slice::<Status>(data) else {
        return;
    };
    let shown = describe_windrow(&status, "windrow/0", "uuid", "spark");
    assert!(!shown.text.contains('\n'), "a status is one line");
    assert!(shown.text.len() < 1100, "a status is short");
}
