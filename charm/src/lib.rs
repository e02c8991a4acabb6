//! The modules of the charm's hook binary: gather facts → plan → apply, the same for every event.
