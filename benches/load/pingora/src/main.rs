//! A small authentication gateway made with Pingora, written as a careful engineer of Pingora would. It exists to be
//! measured against; it is no product.
//!
//! `pingora-gate SETTINGS.json` runs until SIGTERM.

mod gate;
mod settings;
mod tokens;

use std::{error::Error, path::Path};

use pingora::{
    listeners::{L4BufferSettings, ListenerConfig, tls::TlsSettings},
    proxy::http_proxy_service,
    server::{Server, configuration::ServerConf},
};

use crate::{gate::Gate, settings::Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Heads of requests are far below a KiB, and a longer read goes past this buffer. Pingora's default of 64 KiB is most of what an
/// idle connection takes.
const READ_BUFFER_BYTES: usize = 4096;
const WRITE_BUFFER_BYTES: usize = 1460;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1);
    let settings = Settings::read(Path::new(&path.ok_or("usage: pingora-gate SETTINGS.json")?))?;
    let mut server = Server::new_with_opt_and_conf(None, configuration(&settings));
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Gate::new(&settings)?);
    service.add_listener(listener(&settings)?);
    server.add_service(service);
    server.run_forever()
}

fn configuration(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: settings.threads,
        // A runtime of its own for each thread: with nobody to share work with, stealing only costs.
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn listener(settings: &Settings) -> Result<ListenerConfig, Box<dyn Error>> {
    let mut tls = TlsSettings::intermediate(&settings.cert, &settings.cert_key)?;
    tls.enable_h2();
    let buffers = L4BufferSettings::new(READ_BUFFER_BYTES, WRITE_BUFFER_BYTES);
    Ok(ListenerConfig::tcp(&settings.listen)
        .tls(tls)
        .l4_buffer(buffers))
}
