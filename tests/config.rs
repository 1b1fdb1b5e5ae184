//! The configuration, as a user of the library reads it.

#[test]
fn the_sample_loads() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    if let Err(report) = portcullis::config::load(&path) {
        panic!("{report}");
    }
}
