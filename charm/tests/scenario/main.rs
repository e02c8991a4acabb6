//! The built hook binary against hook commands that refuse what Juju refuses.

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, vec![]).exit();
}
