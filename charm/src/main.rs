//! The hook binary of the windrow-k8s charm. It does nothing yet.

fn main() {}
