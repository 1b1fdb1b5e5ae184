//! An upstream that records exactly what it received and answers from a script, however badly.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    client::Stream,
    eventually,
    http1::{BodyReader, Framing, Head, read_head},
    wire::{Below, Wire},
};

/// How much of a body is kept; all of it is counted.
const KEPT: usize = 1 << 20;

/// A request as the upstream received it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    /// The first part of the body, without its framing.
    pub(crate) body: Vec<u8>,
    pub(crate) body_length: u64,
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether the body ended as its framing said.
    pub(crate) complete: bool,
}

impl Seen {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.value(name)
    }
}

/// What the upstream does, in order. The request's body is read first, unless `Early` comes first.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Closes the connection.
    Close,
    /// Begins before the body was read.
    Early,
    /// Answers with the request's body, piece by piece as it comes, chunked.
    Echo,
    /// Says nothing more until the peer closes.
    Hang,
    /// Waits.
    Pause(Duration),
    /// Sends these bytes many times.
    Repeat(Vec<u8>, usize),
    /// Resets the connection.
    Reset,
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends back every byte as it is, until the peer has sent its last; they are kept as the body.
    Mirror,
    /// Waits for the test.
    Until(Arc<Notify>),
}

/// An answer as a script.
#[derive(Debug, Clone)]
pub(crate) struct Reply(pub(crate) Vec<Step>);

impl Reply {
    /// A well-formed 200 with this body.
    pub(crate) fn ok(body: &str) -> Self {
        Self::with(200, &[], body)
    }

    /// A well-formed answer.
    pub(crate) fn with(status: u16, fields: &[(&str, &str)], body: &str) -> Self {
        let mut text = format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        Self::raw(format!("{text}\r\n{body}"))
    }

    /// These bytes, then the next request.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self(vec![Step::Send(bytes.as_ref().to_vec())])
    }

    /// These bytes, then the end of the connection.
    pub(crate) fn raw_and_close(bytes: impl AsRef<[u8]>) -> Self {
        Self(vec![Step::Send(bytes.as_ref().to_vec()), Step::Close])
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

/// A listening upstream. Stops when dropped.
pub(crate) struct Upstream {
    /// What the configuration calls it.
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    record: Arc<Record>,
    changed: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Answers 200 and `hello` to everything.
    pub(crate) async fn start() -> Self {
        Self::scripted(|_| Reply::ok("hello")).await
    }

    /// Answers by a script.
    pub(crate) async fn scripted(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(Wire::Plain, script).await
    }

    /// Answers by a script on a wire of this kind.
    pub(crate) async fn on(
        wire: Wire,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = wire.listen().await;
        let (url, address) = (listener.url.clone(), listener.address);
        let record = Arc::new(Record::default());
        let (change, changed) = watch::channel(());
        let (change, script): (_, Arc<Script>) = (Arc::new(change), Arc::new(script));
        let shared = Arc::clone(&record);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((raw, below)) = listener.accept().await else {
                    break;
                };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (record, script, change) = (
                    Arc::clone(&shared),
                    Arc::clone(&script),
                    Arc::clone(&change),
                );
                let wire = listener.wire.clone();
                connections.spawn(async move {
                    let Ok(stream) = wire.open(raw).await else {
                        record.open.fetch_sub(1, Ordering::SeqCst);
                        change.send_replace(());
                        return;
                    };
                    let mut exchange = Exchange {
                        io: BufReader::new(stream),
                        below,
                        number,
                        record,
                        change,
                    };
                    if let Err(error) = exchange.serve(&*script).await
                        && error.kind() == io::ErrorKind::InvalidData
                    {
                        exchange
                            .record
                            .faults
                            .lock()
                            .unwrap()
                            .push(error.to_string());
                    }
                    exchange.record.open.fetch_sub(1, Ordering::SeqCst);
                    exchange.change.send_replace(());
                });
            }
        });
        Self {
            url,
            address,
            record,
            changed,
            task,
        }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().unwrap().clone()
    }

    /// The number of requests so far.
    pub(crate) fn count(&self) -> usize {
        self.record.seen.lock().unwrap().len()
    }

    /// The newest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw no request")
    }

    /// Fails when the upstream received anything, or anything that is not one clear request.
    #[track_caller]
    pub(crate) fn saw_nothing(&self) {
        let seen: Vec<String> = self
            .seen()
            .iter()
            .map(|seen| seen.head.start.clone())
            .collect();
        assert!(seen.is_empty(), "the upstream saw {seen:?}");
        self.saw_no_fault();
    }

    /// Fails when a byte arrived that was not part of exactly one clear request.
    #[track_caller]
    pub(crate) fn saw_no_fault(&self) {
        let faults = self.record.faults.lock().unwrap();
        assert!(faults.is_empty(), "the upstream received {faults:?}");
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// Waits until the record says so.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> impl Future<Output = ()> {
        let mut changed = self.changed.clone();
        super::within(what, async move {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        })
    }

    /// Waits for the n-th request, its head at least.
    #[track_caller]
    pub(crate) fn request(&self, n: usize) -> impl Future<Output = Seen> {
        eventually("a request at the upstream", async move || {
            self.seen().get(n - 1).cloned()
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Exchange {
    io: BufReader<Box<dyn Stream>>,
    below: Below,
    number: usize,
    record: Arc<Record>,
    change: Arc<watch::Sender<()>>,
}

impl Exchange {
    async fn serve(&mut self, script: &Script) -> io::Result<()> {
        while let Some(head) = read_head(&mut self.io).await? {
            let mut parts = head.start.split(' ');
            let (Some(method), Some(target), Some("HTTP/1.1"), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, head.start));
            };
            let framing = Framing::of(&head)
                .map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
            let seen = Seen {
                connection: self.number,
                method: method.to_owned(),
                target: target.to_owned(),
                framing,
                body: Vec::new(),
                body_length: 0,
                trailers: Vec::new(),
                complete: framing == Framing::None,
                head,
            };
            let index = {
                let mut all = self.record.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            self.change.send_replace(());
            let mut body = BodyReader::new(framing);
            let steps = script(&seen).0;
            if !matches!(steps.first(), Some(Step::Early | Step::Echo)) {
                self.read_body(index, &mut body).await?;
            }
            for step in steps {
                if !self.step(index, &mut body, step).await? {
                    return Ok(());
                }
            }
            self.read_body(index, &mut body).await?;
        }
        Ok(())
    }

    /// Takes one step; `false` ends the connection.
    async fn step(&mut self, index: usize, body: &mut BodyReader, step: Step) -> io::Result<bool> {
        match step {
            Step::Close => {
                self.io.shutdown().await?;
                return Ok(false);
            }
            Step::Early => {}
            Step::Echo => self.echo(index, body).await?,
            Step::Hang => {
                let mut rest = [0; 1024];
                while self.io.read(&mut rest).await? > 0 {}
                return Ok(false);
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Repeat(bytes, times) => {
                for _ in 0..times {
                    self.io.write_all(&bytes).await?;
                }
            }
            Step::Reset => {
                self.below.reset_at_close()?;
                return Ok(false);
            }
            Step::Send(bytes) => self.io.write_all(&bytes).await?,
            Step::Mirror => {
                let mut bytes = [0; 1 << 12];
                loop {
                    let count = self.io.read(&mut bytes).await?;
                    if count == 0 {
                        self.ended(index, body);
                        return Ok(false);
                    }
                    self.keep(index, &bytes[..count]);
                    self.io.write_all(&bytes[..count]).await?;
                    self.io.flush().await?;
                }
            }
            Step::Until(signal) => signal.notified().await,
        }
        self.io.flush().await?;
        Ok(true)
    }

    async fn read_body(&mut self, index: usize, body: &mut BodyReader) -> io::Result<()> {
        while let Some(piece) = body.next(&mut self.io).await? {
            self.keep(index, &piece);
        }
        self.ended(index, body);
        Ok(())
    }

    async fn echo(&mut self, index: usize, body: &mut BodyReader) -> io::Result<()> {
        self.io
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        while let Some(piece) = body.next(&mut self.io).await? {
            self.keep(index, &piece);
            self.io
                .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                .await?;
            self.io.write_all(&piece).await?;
            self.io.write_all(b"\r\n").await?;
            self.io.flush().await?;
        }
        self.ended(index, body);
        self.io.write_all(b"0\r\n\r\n").await
    }

    fn keep(&self, index: usize, piece: &[u8]) {
        let mut all = self.record.seen.lock().unwrap();
        let seen = &mut all[index];
        seen.body_length += u64::try_from(piece.len()).unwrap();
        let room = KEPT.saturating_sub(seen.body.len()).min(piece.len());
        seen.body.extend_from_slice(&piece[..room]);
        drop(all);
        self.change.send_replace(());
    }

    fn ended(&self, index: usize, body: &BodyReader) {
        let mut all = self.record.seen.lock().unwrap();
        all[index].complete = true;
        all[index].trailers.clone_from(&body.trailers);
        drop(all);
        self.change.send_replace(());
    }
}
