//! The least that a proxy of the gateway's shape costs: the same HTTP, TLS, runtime and allocator, one thread, one map of fields
//! passed on with six more. It checks nothing and bounds nothing, and exists to be measured against.
//!
//! `trial LISTEN CERT KEY UPSTREAM` runs until it is killed.

use std::{cell::RefCell, error::Error, net::SocketAddr, path::Path, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    task::{LocalSet, spawn_local},
};
use tokio_rustls::TlsAcceptor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the gateway's: a window for each stream, one for all of a connection, and what is buffered of an answer.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
const SEND_BUFFER: usize = 64 << 10;
const STREAMS: u32 = 100;
/// As long as a request id.
const SOMETHING: HeaderValue = HeaderValue::from_static("trial-0000000000000000000000000000");

type Fault = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, cert, key, upstream] = arguments.as_slice() else {
        return Err("usage: trial LISTEN CERT KEY UPSTREAM".into());
    };
    let tls = TlsAcceptor::from(Arc::new(tls(Path::new(cert), Path::new(key))?));
    let upstream = Rc::new(Upstream {
        address: upstream.parse()?,
        idle: RefCell::default(),
    });
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, accept(listen, &tls, &upstream))
}

fn tls(cert: &Path, key: &Path) -> Result<ServerConfig, Fault> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

async fn accept(listen: &str, tls: &TlsAcceptor, upstream: &Rc<Upstream>) -> Result<(), Fault> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let (tls, upstream) = (tls.clone(), Rc::clone(upstream));
        spawn_local(async move {
            // Whoever is not served has gone away; there is nobody to tell.
            let _ = serve(stream, peer, tls, upstream).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    upstream: Rc<Upstream>,
) -> Result<(), Fault> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let address = HeaderValue::try_from(peer.ip().to_string())?;
    let service = service_fn(move |request| {
        let (upstream, address) = (Rc::clone(&upstream), address.clone());
        async move { upstream.forward(request, address).await }
    });
    if is_http2 {
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await?;
    } else {
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None);
        builder
            .serve_connection(TokioIo::new(stream), service)
            .await?;
    }
    Ok(())
}

/// Where requests go, with the connections that are not in use.
struct Upstream {
    address: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Upstream {
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        address: HeaderValue,
    ) -> Result<Response<Incoming>, Fault> {
        if request.version() == Version::HTTP_2 {
            to_http1(&mut request)?;
        }
        tell(request.headers_mut(), address);
        let mut sender = self.connection().await?;
        let mut answer = sender.send_request(request).await?;
        // It is ready again when the answer's body has been read.
        self.idle.borrow_mut().push(sender);
        answer.headers_mut().remove(header::CONNECTION);
        Ok(answer)
    }

    /// The connection that was used last and is ready, or a new one.
    async fn connection(&self) -> Result<SendRequest<Incoming>, Fault> {
        let ready = {
            let mut idle = self.idle.borrow_mut();
            idle.iter()
                .rposition(SendRequest::is_ready)
                .map(|at| idle.swap_remove(at))
        };
        if let Some(sender) = ready {
            return Ok(sender);
        }
        self.idle.borrow_mut().retain(|sender| !sender.is_closed());
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = client::handshake(TokioIo::new(stream)).await?;
        spawn_local(driver);
        Ok(sender)
    }
}

/// A request of HTTP/2 names its host in the target, one of HTTP/1.1 to an origin in a field.
fn to_http1(request: &mut Request<Incoming>) -> Result<(), Fault> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(path) = uri.into_parts().path_and_query {
        *request.uri_mut() = Uri::from(path);
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// Six fields more, none of which says anything that was found out.
fn tell(headers: &mut HeaderMap, address: HeaderValue) {
    headers.remove(header::CONNECTION);
    let host = headers.get(header::HOST).cloned();
    headers.insert(
        HeaderName::from_static("x-forwarded-host"),
        host.unwrap_or(SOMETHING),
    );
    headers.insert(HeaderName::from_static("x-forwarded-for"), address.clone());
    headers.insert(HeaderName::from_static("x-real-ip"), address);
    headers.insert(
        HeaderName::from_static("x-forwarded-proto"),
        HeaderValue::from_static("https"),
    );
    headers.insert(HeaderName::from_static("x-forwarded-user"), SOMETHING);
    headers.insert(HeaderName::from_static("x-request-id"), SOMETHING);
}

/// Runs the streams of a connection on its thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        spawn_local(stream);
    }
}
