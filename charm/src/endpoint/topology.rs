//! Where in Juju something comes from. The observability charms use these labels to tell the
//! alerts, dashboards and logs of applications apart.

use serde_json::{Value, json};

/// The charm's name in `metadata.yaml`.
pub const CHARM: &str = "windrow-k8s";

/// The place of this unit in Juju.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The model's name.
    pub model: String,
    /// The model's UUID.
    pub model_uuid: String,
    /// `windrow` of `windrow/0`.
    pub application: String,
    /// `windrow/0`.
    pub unit: String,
}

impl Topology {
    /// The place of `unit`, such as `windrow/0`, in this model.
    #[must_use]
    pub fn new(model: &str, model_uuid: &str, unit: &str) -> Self {
        Self {
            model: model.to_owned(),
            model_uuid: model_uuid.to_owned(),
            application: unit.split('/').next().unwrap_or_default().to_owned(),
            unit: unit.to_owned(),
        }
    }

    /// The map that `JujuTopology.as_dict` of the library cosl makes.
    pub(super) fn as_dict(&self) -> Value {
        json!({
            "model": self.model,
            "model_uuid": self.model_uuid,
            "application": self.application,
            "unit": self.unit,
            "charm_name": CHARM,
        })
    }

    /// `spark_3f2c0a11_windrow`, like `JujuTopology.identifier` of cosl.
    pub(super) fn identifier(&self) -> String {
        let uuid: String = self.model_uuid.chars().take(8).collect();
        format!("{}_{uuid}_{}", self.model, self.application)
    }

    /// The unit's name in the cluster's DNS, which the headless service gives it that Juju makes
    /// for each application, in the namespace that has the model's name. Example:
    /// `windrow-0.windrow-endpoints.spark.svc.cluster.local`.
    pub(super) fn host(&self, cluster_domain: &str) -> String {
        let Self {
            model,
            application,
            unit,
            ..
        } = self;
        format!(
            "{}.{application}-endpoints.{model}.svc.{cluster_domain}",
            unit.replace('/', "-")
        )
    }
}

/// The topology that the tests of this folder use.
#[cfg(test)]
pub(super) fn example() -> Topology {
    Topology::new("spark", "3f2c0a11-dcb3-4870-8509-330eb9745ee8", "windrow/1")
}
