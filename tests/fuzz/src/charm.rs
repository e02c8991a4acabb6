//! The parsers of the charm: databags, certificates, options, and what the workload says.

use crate::text;
use windrow_charm::endpoint::Topology;
use windrow_charm::endpoint::{certificates as ca, kafka, logging, metastore, s3};
use windrow_charm::facts::{Bag, OptionValues, Relation};
use windrow_charm::options as charm_options;
use windrow_charm::status::{Names, describe_windrow};
use windrow_core::settings::certificates::Certificates;
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

/// A text with certificates. What is taken is taken again as it was written, and every piece that
/// is left out has a reason.
pub fn certificates(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let read = Certificates::read(text);
    let again = Certificates::read(&read.blocks.concat());
    assert!(
        read.blocks.len() + read.left_out.len() > 0,
        "nothing is said of it"
    );
    if !read.blocks.is_empty() {
        assert_eq!(again.blocks, read.blocks, "it is read as written");
        assert_eq!(again.left_out, Vec::<String>::new());
    }
    let all = Certificates::read_all(text);
    assert_eq!(all.is_ok(), read.left_out.is_empty());
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
    let names = Names {
        unit: "windrow/0".to_owned(),
        ..Names::default()
    };
    let shown = describe_windrow(&status, &names);
    assert!(!shown.text.contains('\n'), "a status is one line");
    assert!(shown.text.len() < 1100, "a status is short");
}
