//! An upstream that speaks HTTP/2, records what it received, and answers stream by stream, however badly.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{sync::Notify, task::JoinHandle};

use super::{eventually, wire::Wire};

/// A request as the upstream received it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// `:scheme`, `:authority` and `:path` as one.
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// Whether the body ended, and was not reset.
    pub(crate) complete: bool,
    /// Why the gateway reset it, as far as the upstream noticed.
    pub(crate) reset: Option<Reason>,
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What the upstream does with a stream.
#[derive(Clone)]
pub(crate) enum Deed {
    /// Answers 200 with this body, once the request's is read.
    Answer(&'static str),
    /// Answers with these fields and this body, once the request's is read.
    Fields(Vec<(&'static str, String)>, &'static str),
    /// Answers with these fields and this body, once the request's is read, and lets these trailers follow.
    Trailers(Fields, &'static str, Fields),
    /// Sends a head at once, every piece of the request's body back as it comes, and then these trailers.
    Echo(Fields, Fields),
    /// Answers before the request's body is read, and leaves that unread.
    Early(&'static str),
    /// Begins a body, then resets the stream.
    Cut(&'static str, Reason),
    /// Ends the body before the length that it announced.
    Short,
    /// Answers when told to.
    Until(Arc<Notify>),
    /// Resets the stream without an answer.
    Reset(Reason),
    /// Answers, and takes no further requests on the connection.
    GoAway(&'static str),
    /// Drops the connection in the middle of a body.
    Drop,
    /// Never answers.
    Hang,
}

/// Fields by name and value.
pub(crate) type Fields = Vec<(&'static str, &'static str)>;

type Script = dyn Fn(&Stream) -> Deed + Send + Sync;

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Stream>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// A listening upstream. Stops when dropped.
pub(crate) struct Streams {
    pub(crate) url: String,
    record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Streams {
    /// Answers by a script on a wire of this kind, to so many requests at once.
    pub(crate) async fn on(
        wire: Wire,
        at_once: u32,
        script: impl Fn(&Stream) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let listener = wire.listen().await;
        let url = listener.url.clone();
        let record = Arc::new(Record::default());
        let script: Arc<Script> = Arc::new(script);
        let shared = Arc::clone(&record);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((raw, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (record, script) = (Arc::clone(&shared), Arc::clone(&script));
                let wire = listener.wire.clone();
                connections.spawn(async move {
                    record.open.fetch_add(1, Ordering::SeqCst);
                    if let Ok(stream) = wire.open(raw).await {
                        serve(stream, at_once, &record, &script).await;
                    }
                    record.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, record, task }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Stream> {
        self.record.seen.lock().unwrap().clone()
    }

    /// What has come of the newest request's body.
    pub(crate) fn last_body(&self) -> Option<Vec<u8>> {
        Some(self.seen().pop()?.body)
    }

    pub(crate) fn count(&self) -> usize {
        self.record.seen.lock().unwrap().len()
    }

    #[track_caller]
    pub(crate) fn last(&self) -> Stream {
        self.seen().pop().expect("the upstream saw no request")
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// Waits for the n-th request to be so.
    pub(crate) async fn until(&self, n: usize, holds: impl Fn(&Stream) -> bool) -> Stream {
        eventually("a stream at the upstream", async || {
            self.seen().get(n - 1).filter(|seen| holds(seen)).cloned()
        })
        .await
    }
}

async fn serve(
    stream: Box<dyn super::client::Stream>,
    at_once: u32,
    record: &Arc<Record>,
    script: &Arc<Script>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(at_once);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let (leave, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = leave.notified() => {
                connection.graceful_shutdown();
                continue;
            }
            () = left.notified() => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        let exchange = Exchange {
            index: note(record, &request),
            record: Arc::clone(record),
            leave: Arc::clone(&leave),
            left: Arc::clone(&left),
        };
        let deed = script(&record.seen.lock().unwrap()[exchange.index].clone());
        tasks.spawn(exchange.act(request.into_body(), respond, deed));
    }
}

fn note(record: &Record, request: &Request<RecvStream>) -> usize {
    let mut seen = record.seen.lock().unwrap();
    seen.push(Stream {
        uri: request.uri().to_string(),
        headers: request.headers().clone(),
        body: Vec::new(),
        trailers: HeaderMap::new(),
        complete: request.body().is_end_stream(),
        reset: None,
    });
    seen.len() - 1
}

struct Exchange {
    index: usize,
    record: Arc<Record>,
    leave: Arc<Notify>,
    left: Arc<Notify>,
}

impl Exchange {
    fn change(&self, change: impl FnOnce(&mut Stream)) {
        change(&mut self.record.seen.lock().unwrap()[self.index]);
    }

    async fn read(&self, mut body: RecvStream) {
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    self.change(|seen| seen.body.extend_from_slice(&data));
                }
                Err(error) => return self.change(|seen| seen.reset = error.reason()),
            }
        }
        match body.trailers().await {
            Ok(trailers) => self.change(|seen| {
                seen.trailers = trailers.unwrap_or_default();
                seen.complete = true;
            }),
            Err(error) => self.change(|seen| seen.reset = error.reason()),
        }
    }

    async fn echo(&self, mut body: RecvStream, to: &mut SendStream<Bytes>) {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            self.change(|seen| seen.body.extend_from_slice(&data));
            let _ = to.send_data(data, false);
        }
        self.read(body).await;
    }

    async fn act(self, body: RecvStream, mut respond: SendResponse<Bytes>, deed: Deed) {
        let ok = || Response::builder().status(200);
        match deed {
            Deed::Answer(text) => {
                self.read(body).await;
                finish(&mut respond, ok().body(()).unwrap(), text);
            }
            Deed::Fields(fields, text) => {
                self.read(body).await;
                let mut answer = ok();
                for (name, value) in fields {
                    answer = answer.header(name, value);
                }
                finish(&mut respond, answer.body(()).unwrap(), text);
            }
            Deed::Trailers(fields, text, trailers) => {
                self.read(body).await;
                let mut stream = respond.send_response(head(&fields), false).unwrap();
                let _ = stream.send_data(Bytes::from(text), false);
                let _ = stream.send_trailers(map(&trailers));
            }
            Deed::Echo(fields, trailers) => {
                let mut stream = respond.send_response(head(&fields), false).unwrap();
                self.echo(body, &mut stream).await;
                let _ = stream.send_trailers(map(&trailers));
            }
            Deed::Early(text) => {
                finish(&mut respond, ok().body(()).unwrap(), text);
                self.read(body).await;
            }
            Deed::Cut(text, reason) => {
                let mut stream = respond
                    .send_response(ok().body(()).unwrap(), false)
                    .unwrap();
                stream.send_data(Bytes::from(text), false).unwrap();
                // The data is on its way before the reset takes what is left of it.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                stream.send_reset(reason);
            }
            Deed::Short => {
                let answer = ok().header("content-length", "10").body(()).unwrap();
                finish(&mut respond, answer, "abc");
            }
            Deed::Until(signal) => {
                signal.notified().await;
                finish(&mut respond, ok().body(()).unwrap(), "at last");
            }
            Deed::Reset(reason) => respond.send_reset(reason),
            Deed::GoAway(text) => {
                self.leave.notify_one();
                self.read(body).await;
                finish(&mut respond, ok().body(()).unwrap(), text);
            }
            Deed::Drop => {
                let mut stream = respond
                    .send_response(ok().body(()).unwrap(), false)
                    .unwrap();
                stream.send_data(Bytes::from("abc"), false).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                self.left.notify_one();
            }
            Deed::Hang => {
                let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                self.change(|seen| seen.reset = reset.ok());
            }
        }
    }
}

fn finish(respond: &mut SendResponse<Bytes>, answer: Response<()>, text: &'static str) {
    // A gateway that has gone is no fault of this upstream.
    if let Ok(mut stream) = respond.send_response(answer, text.is_empty())
        && !text.is_empty()
    {
        let _ = stream.send_data(Bytes::from(text), true);
    }
}

fn head(fields: &Fields) -> Response<()> {
    let mut answer = Response::new(());
    *answer.headers_mut() = map(fields);
    answer
}

fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    map
}
